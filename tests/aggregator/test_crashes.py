"""The engine dies at every step it takes; nothing accepted is lost and nothing is merged twice."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aggregator.fold import Fold
from aggregator.merging import Rule
from aggregator.reception import Inbound
from aggregator.retention import Retention
from aggregator.snapshots import encode_snapshot
from tests.aggregator.workshop import Workshop, make_update, open_workshop
from wire import topics
from wire.bundle import Bundle
from wire.messages import Outcome, Receipt

UPDATES, BATCH, BUFFER = 8, 4, 3
RULE = Rule(buffer_size=BUFFER)
RETENTION = Retention(snapshot_every=BUFFER, keep_snapshots=1, keep_every=0, keep_publications=1)


class Crash(BaseException):
    """The process is gone: nothing catches this."""


class Fuse:
    """Lets so many steps pass, then raises."""

    def __init__(self, steps: int) -> None:
        self.left = steps
        self.blown = False

    def step(self) -> None:
        if self.left == 0:
            self.blown = True
            raise Crash
        self.left -= 1

    def around(self, method: Callable[..., Any]) -> Callable[..., Any]:
        """The method with a step before and a step after it."""

        def fused(*args: Any, **kwargs: Any) -> Any:
            self.step()
            result = method(*args, **kwargs)
            self.step()
            return result

        return fused


class Fleet:
    """A broker that keeps what is not acknowledged, and a device that sends until answered."""

    def __init__(self, bundle: Bundle) -> None:
        self._unanswered = {
            n: make_update(bundle, n, base=0).encode() for n in range(1, UPDATES + 1)
        }
        self._queue: list[tuple[int, bytes]] = sorted(self._unanswered.items())
        self.verdicts: list[tuple[int, Outcome]] = []

    def batch(self, fuse: Fuse) -> Sequence[Inbound]:
        return [self._message(entry, fuse) for entry in self._queue[:BATCH]]

    def publish(self, topic: str, payload: bytes, **_: bool) -> None:
        if topic == topics.receipts("a"):
            receipt = Receipt.decode(payload)
            self.verdicts.append((receipt.sequence, receipt.outcome))
            self._unanswered.pop(receipt.sequence, None)

    def resend(self) -> None:
        """What a device does after a while without a receipt."""
        queued = {sequence for sequence, _ in self._queue}
        self._queue += [entry for entry in self._unanswered.items() if entry[0] not in queued]

    @property
    def done(self) -> bool:
        return not self._queue and not self._unanswered

    def _message(self, entry: tuple[int, bytes], fuse: Fuse) -> Inbound:
        def acknowledge() -> None:
            fuse.step()
            self._queue.remove(entry)

        return Inbound(topics.updates("a"), entry[1], acknowledge)


def live(workshop: Workshop, fleet: Fleet, fuse: Fuse, patch: pytest.MonkeyPatch) -> None:
    """One life of an engine: until the fleet is done, or the fuse blows."""
    patch.setattr(workshop.ledger, "take_in", fuse.around(workshop.ledger.take_in))
    patch.setattr(workshop.ledger, "add_merges", fuse.around(workshop.ledger.add_merges))
    for name in ("add_snapshot", "forget_snapshot", "add_publication", "forget_publications"):
        patch.setattr(workshop.ledger, name, fuse.around(getattr(workshop.ledger, name)))
    for name in ("upload", "delete"):
        patch.setattr(workshop.blobs, name, fuse.around(getattr(workshop.blobs, name)))
    patch.setattr(workshop.outbox, "publish", fuse.around(fleet.publish))
    patch.setattr(workshop.engine, "_publish", workshop.outbox.publish)
    patch.setattr(workshop.engine._acceptance, "_publish", workshop.outbox.publish)
    workshop.engine.start()
    while not fleet.done:
        if messages := fleet.batch(fuse):
            workshop.engine.ingest(messages)
        fleet.resend()


def final_parameters(
    folder: Path, bundle: Bundle, fuses: Sequence[int]
) -> tuple[bytes, Fleet, int]:
    """Run lives that end after so many steps each, then one to the end; audit the ledger."""
    fleet, blown = Fleet(bundle), 0
    start = folder.with_name("start")
    if not start.exists():
        with open_workshop(start, rule=RULE, retention=RETENTION) as workshop:
            workshop.engine.start()
            workshop.engine.register(bundle)
    shutil.copytree(start, folder)
    for steps in [*fuses, 1_000_000]:
        fuse = Fuse(steps)
        with (
            open_workshop(folder, rule=RULE, retention=RETENTION) as workshop,
            pytest.MonkeyPatch.context() as patch,
        ):
            try:
                live(workshop, fleet, fuse, patch)
            except Crash:
                fleet.resend()
        blown += fuse.blown
    with open_workshop(folder, rule=RULE, retention=RETENTION) as workshop:
        workshop.engine.start()
        return audit(workshop, bundle), fleet, blown


def audit(workshop: Workshop, bundle: Bundle) -> bytes:
    task = workshop.engine.tasks[bundle.task]
    updates = workshop.reports.updates(bundle.task)
    assert sorted(update.sequence for update in updates) == list(range(1, UPDATES + 1))
    merged = [update.merged_in for update in updates if update.merged_in is not None]
    assert task.version == len(merged) // BUFFER == UPDATES // BUFFER
    assert task.pending == UPDATES % BUFFER
    for version, _ in workshop.ledger.snapshots(task.name):
        if version:
            workshop.ledger.forget_snapshot(task.name, version)
    replayed = Fold(workshop.ledger, task.name, task.specs).rebuild(workshop.blobs, task.version)
    assert encode_snapshot(replayed.state) == encode_snapshot(task.state)
    assert replayed.digest == task.newest.digest
    return encode_snapshot(task.state)


@pytest.mark.slow
def test_death_at_every_step_changes_nothing(tmp_path: Path, bundle: Bundle) -> None:
    undisturbed, fleet, _ = final_parameters(tmp_path / "undisturbed", bundle, [])
    assert fleet.verdicts == [(n, Outcome.ACCEPTED) for n in range(1, UPDATES + 1)]
    steps = 0
    while True:
        result, fleet, blown = final_parameters(tmp_path / f"at-{steps}", bundle, [steps])
        assert result == undisturbed
        assert {n for n, _ in fleet.verdicts} == set(range(1, UPDATES + 1))
        if not blown:
            break
        steps += 1
    assert steps > 30


def test_deaths_in_a_row_change_nothing(tmp_path: Path, bundle: Bundle) -> None:
    undisturbed, _, _ = final_parameters(tmp_path / "undisturbed", bundle, [])
    rng = np.random.default_rng(7)
    for run in range(6):
        fuses = rng.integers(0, 25, size=6).tolist()
        result, _, blown = final_parameters(tmp_path / f"run-{run}", bundle, fuses)
        assert result == undisturbed
        assert blown > 0
