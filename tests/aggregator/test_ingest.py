"""An ingest beside an engine on one ledger: what it knows late, it looks up before it refuses."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from aggregator.admission import AdmissionPolicy
from aggregator.ingest import REFRESH_EVERY_S, Ingest
from aggregator.ledger import Ledger, LedgerUnavailableError, Reports, open_database
from aggregator.metrics import Instruments
from aggregator.orders import Steering
from tests.aggregator.workshop import Outbox, Workshop, make_bundle, make_delta, make_update
from wire.bundle import Bundle
from wire.delta import add
from wire.messages import Outcome, Receipt, Refusal, Update

POLICY = AdmissionPolicy(norm_warmup=3, norm_factor=2.0)


class Door:
    """An ingest with an outbox of its own, on the workshop's ledger."""

    def __init__(self, workshop: Workshop, data: Path) -> None:
        self.database = open_database(f"sqlite:///{data / 'ledger.db'}")
        self.outbox, self.clock = Outbox(), workshop.clock
        self.ledger = Ledger(self.database)
        self.ingest = Ingest(
            ledger=self.ledger,
            publish=self.outbox.publish,
            clock=workshop.clock,
            instruments=Instruments(),
            admission=POLICY,
        )
        self.ingest.start()

    def send(self, device: str, *updates: Update) -> list[Receipt]:
        """The answers to one batch."""
        before = len(self.outbox.receipts(device))
        messages = [self.outbox.inbound(device, update.encode()) for update in updates]
        self.ingest.ingest(messages)
        assert self.outbox.acknowledged[-len(messages) :] == messages
        return self.outbox.receipts(device)[before:]


@pytest.fixture
def door(workshop: Workshop, tmp_path: Path) -> Iterator[Door]:
    door = Door(workshop, tmp_path / "data")
    yield door
    door.database.dispose()


def test_what_it_takes_in_is_merged_by_the_engine(
    door: Door, workshop: Workshop, bundle: Bundle
) -> None:
    receipts = door.send("a", *(make_update(bundle, n) for n in (1, 2, 3)))
    assert [receipt.outcome for receipt in receipts] == [Outcome.ACCEPTED] * 3
    task = workshop.engine.tasks[bundle.task]
    assert task.version == 0
    workshop.engine.collect()
    workshop.engine.tick()
    assert task.version == 1


def test_a_task_and_a_version_that_are_new_are_looked_up(
    door: Door, workshop: Workshop, bundle: Bundle, tmp_path: Path
) -> None:
    workshop.send("a", *(make_update(bundle, n) for n in (1, 2, 3)))
    [receipt] = door.send("b", make_update(bundle, 1, base=1))
    assert (receipt.outcome, receipt.version) == (Outcome.ACCEPTED, 1)
    [receipt] = door.send("b", make_update(bundle, 2, base=2))
    assert receipt.reason is Refusal.FROM_THE_FUTURE
    other = make_bundle(tmp_path / "other", name="other")
    [receipt] = door.send("b", make_update(other, 1))
    assert receipt.reason is Refusal.UNKNOWN_TASK
    workshop.engine.register(other)
    [receipt] = door.send("b", make_update(other, 2))
    assert receipt.outcome is Outcome.ACCEPTED


def test_an_update_that_another_took_in_is_a_duplicate(
    door: Door, workshop: Workshop, bundle: Bundle
) -> None:
    workshop.send("a", make_update(bundle, 1))
    [receipt] = door.send("a", make_update(bundle, 1))
    assert receipt.outcome is Outcome.DUPLICATE


def test_one_that_is_decided_between_the_look_and_the_commit_is_judged_again(
    door: Door, workshop: Workshop, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    decisions = door.ledger.decisions
    looks: list[int] = []

    def late(keys: object) -> object:
        found = decisions(keys)  # type: ignore[arg-type]
        if not looks:
            workshop.send("a", make_update(bundle, 1))
        looks.append(1)
        return found

    monkeypatch.setattr(door.ledger, "decisions", late)
    receipts = door.send("a", make_update(bundle, 1), make_update(bundle, 2))
    assert [r.outcome for r in receipts] == [Outcome.DUPLICATE, Outcome.ACCEPTED]
    assert len(looks) == 2
    assert len(Reports(door.database).updates(bundle.task)) == 2


def test_what_is_usual_is_learnt_from_the_others(
    door: Door, workshop: Workshop, bundle: Bundle
) -> None:
    workshop.send("a", *(make_update(bundle, n) for n in (1, 2, 3)))
    door.clock.now += REFRESH_EVERY_S
    door.ingest.tick()
    large = add({}, make_delta(bundle, 9), 1e2)
    [receipt] = door.send("b", make_update(bundle, 1, delta=large))
    assert receipt.reason is Refusal.NORM
    # Under another learning rate other norms are usual, and it learns of that before it refuses.
    workshop.engine.steer(bundle.task, Steering(training={"learning_rate": 0.5}))
    [receipt] = door.send("b", make_update(bundle, 2, delta=large))
    assert receipt.outcome is Outcome.ACCEPTED


def test_a_database_that_is_away_is_asked_again(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away() -> None:
        raise LedgerUnavailableError("away")

    with monkeypatch.context() as patch:
        patch.setattr(door.ledger, "heads", away)
        door.clock.now += REFRESH_EVERY_S
        door.ingest.tick()
    assert door.ingest.next_due() == door.clock.now + REFRESH_EVERY_S
