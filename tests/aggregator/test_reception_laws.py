"""What holds for any messages in any order, through the real engine, restarts included."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aggregator.admission import AdmissionPolicy
from aggregator.fold import Fold
from aggregator.merging import Rule
from tests.aggregator.workshop import (
    ManualClock,
    Workshop,
    make_bundle,
    make_delta,
    make_update,
    open_workshop,
)
from wire.bundle import Bundle
from wire.delta import add
from wire.messages import Outcome, Receipt, Update

DEVICES = ("a", "b", "c")
POLICY = AdmissionPolicy(max_staleness=2, norm_factor=3.0, norm_warmup=4, rate_burst=2)
Key = tuple[str, int]


@dataclass(frozen=True)
class Message:
    """One delivery. The content goes with device and sequence alone, as a real device's does."""

    device: str
    sequence: int
    cut: int | None

    def payload(self, bundle: Bundle) -> bytes:
        return self.update(bundle).encode()[: self.cut]

    def update(self, bundle: Bundle) -> Update:
        kind = (self.sequence + DEVICES.index(self.device)) % 7
        update = make_update(bundle, self.sequence, base=self.sequence % 3)
        if kind == 0:
            return replace(update, payload=update.payload[:9])
        if kind == 1:
            # A hundred times what is usual.
            delta = add({}, make_delta(bundle, self.sequence), 100.0)
            return make_update(bundle, self.sequence, delta=delta)
        return update


messages = st.builds(
    Message,
    device=st.sampled_from(DEVICES),
    sequence=st.integers(1, 9),
    cut=st.none() | st.none() | st.none() | st.integers(-30, 60),
)
steps = st.one_of(
    st.lists(messages, min_size=1, max_size=8),
    st.sampled_from([0.5, 30.0, 60.0, 600.0, -600.0]),
    st.just("restart"),
)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("bundle"), interval_s=60.0)


class Witness:
    """Keeps count of what was answered, as an agent would, and holds the laws."""

    def __init__(self) -> None:
        self.standing: dict[Key, Receipt] = {}

    def hear(self, device: str, receipt: Receipt) -> None:
        key = device, receipt.sequence
        before = self.standing.get(key)
        if before is None:
            assert receipt.outcome is not Outcome.DUPLICATE
            if receipt.reason is None or not receipt.reason.momentary:
                self.standing[key] = receipt
        elif before.outcome is Outcome.ACCEPTED:
            assert receipt.outcome is Outcome.DUPLICATE
        else:
            assert (receipt.outcome, receipt.reason) == (before.outcome, before.reason)

    @property
    def accepted(self) -> set[Key]:
        return {key for key, word in self.standing.items() if word.outcome is Outcome.ACCEPTED}


def deliver(workshop: Workshop, witness: Witness, batch: Sequence[Message], tiny: Bundle) -> None:
    answered = {device: len(workshop.outbox.receipts(device)) for device in DEVICES}
    acknowledged = len(workshop.outbox.acknowledged)
    workshop.deliver(*((message.device, message.payload(tiny)) for message in batch))
    assert len(workshop.outbox.acknowledged) == acknowledged + len(batch)
    for device in DEVICES:
        sent = [m for m in batch if m.device == device and readable(m.payload(tiny))]
        receipts = workshop.outbox.receipts(device)[answered[device] :]
        assert [r.sequence for r in receipts] == [m.sequence for m in sent]
        for receipt in receipts:
            witness.hear(device, receipt)


def readable(payload: bytes) -> bool:
    try:
        Update.decode(payload)
    except Exception:
        return False
    return True


def check(workshop: Workshop, witness: Witness, tiny: Bundle) -> None:
    """The ledger has what was said to be accepted, once each; the model is the fold of it."""
    reports = workshop.reports.updates(tiny.task, limit=1_000)
    keys = [(report.device, report.sequence) for report in reports]
    assert len(keys) == len(set(keys))
    assert set(keys) == witness.accepted
    task = workshop.engine.tasks[tiny.task]
    merged = [report for report in reports if report.merged_in is not None]
    assert len(merged) + task.pending == len(keys)
    assert workshop.ledger.norms(tiny.task) == dict(task.norms.counts)
    again = Fold(workshop.ledger, tiny.task, task.specs).rebuild(workshop.blobs, task.version)
    assert again.digest == task.newest.digest
    for name, array in task.state.parameters.items():
        assert np.array_equal(again.state.parameters[name], array)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(script=st.lists(steps, min_size=1, max_size=12))
def test_any_sequence_of_messages_is_answered_once_and_for_all(
    tiny: Bundle, script: list[list[Message] | float | str]
) -> None:
    witness, clock = Witness(), ManualClock()
    pending = list(script)
    with tempfile.TemporaryDirectory() as folder:
        while pending:
            with open_workshop(
                Path(folder), rule=Rule(buffer_size=3), admission=POLICY, clock=clock
            ) as workshop:
                workshop.engine.start()
                workshop.engine.register(tiny)
                while pending and (step := pending.pop(0)) != "restart":
                    if isinstance(step, list):
                        deliver(workshop, witness, step, tiny)
                    elif isinstance(step, float):
                        clock.now += step
                        workshop.engine.tick()
                check(workshop, witness, tiny)
