"""Bad input through the real engine: each is refused by name, counted, answered, and harmless."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from aggregator.admission import AdmissionPolicy
from aggregator.ledger import LedgerUnavailableError, UpdateKey
from aggregator.merging import Rule
from aggregator.orders import Steering
from tests.aggregator.workshop import (
    Workshop,
    make_bundle,
    make_delta,
    make_update,
    open_workshop,
)
from wire import topics
from wire.bundle import Bundle
from wire.delta import add, squared_norm
from wire.messages import (
    MAX_MESSAGE_BYTES,
    Outcome,
    Receipt,
    Refusal,
    Status,
    StatusState,
    Update,
)

INTERVAL_S = 60.0
ACCEPTED = Outcome.ACCEPTED, None
POLICY = AdmissionPolicy(
    max_staleness=2, norm_factor=4.0, norm_warmup=10, rate_burst=3, rate_tolerance=0.0
)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return make_bundle(tmp_path / "bundle", interval_s=INTERVAL_S)


@pytest.fixture
def workshop(tmp_path: Path, bundle: Bundle) -> Iterator[Workshop]:
    with open_workshop(tmp_path / "data", admission=POLICY, rule=Rule(buffer_size=100)) as opened:
        opened.engine.start()
        opened.engine.register(bundle)
        yield opened


def answers(workshop: Workshop, device: str) -> list[tuple[Outcome, Refusal | None]]:
    return [(receipt.outcome, receipt.reason) for receipt in workshop.outbox.receipts(device)]


def last(workshop: Workshop, device: str = "a") -> tuple[Outcome, Refusal | None]:
    return answers(workshop, device)[-1]


def of_norm(bundle: Bundle, sequence: int, norm: float) -> Update:
    delta = make_delta(bundle, sequence)
    unit = add({}, delta, squared_norm(delta) ** -0.5)
    return make_update(bundle, sequence, delta=add({}, unit, norm))


def warm_up(workshop: Workshop, bundle: Bundle, *, norm: float = 1.0) -> None:
    """Ten devices' updates of one norm."""
    for number in range(POLICY.norm_warmup):
        workshop.send(f"warm-{number}", of_norm(bundle, 1, norm))


# What names an update


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"payload": b""}, Refusal.WRONG_SHAPE),
        ({"payload": b"\x01\x02\x03"}, Refusal.WRONG_SHAPE),
        ({"task": "0" * 32}, Refusal.UNKNOWN_TASK),
        ({"base_version": 7}, Refusal.FROM_THE_FUTURE),
    ],
)
def test_bad_updates_are_refused_for_good(
    workshop: Workshop, bundle: Bundle, change: dict[str, object], reason: Refusal
) -> None:
    bad = replace(make_update(bundle, 1), **change)  # type: ignore[arg-type]
    for _ in range(2):
        workshop.send("a", bad)
        assert last(workshop) == (Outcome.REJECTED, reason)
    # Of an unknown task nobody looks up whether it was refused before.
    assert workshop.refused(reason) == (2 if reason is Refusal.UNKNOWN_TASK else 1)
    assert reason.advice in workshop.reports.events()[-1].detail
    workshop.send("a", make_update(bundle, 2))
    assert last(workshop) == ACCEPTED


def test_a_stale_update_is_refused_for_good(workshop: Workshop, bundle: Bundle) -> None:
    workshop.engine.steer(bundle.task, Steering(rule={"buffer_size": 1}))
    for number in range(3):
        workshop.send(f"other-{number}", make_update(bundle, 1))
    workshop.send("a", make_update(bundle, 1), make_update(bundle, 2, base=1))
    assert answers(workshop, "a") == [(Outcome.REJECTED, Refusal.TOO_STALE), ACCEPTED]


def test_a_number_that_is_none_is_refused_for_good(workshop: Workshop, bundle: Bundle) -> None:
    delta = make_delta(bundle, 1)
    head = delta["head"]
    assert isinstance(head, np.ndarray)
    head[0] = 1.0
    good = make_update(bundle, 1, delta=delta)
    bits = "".join(f"{octet:08b}" for octet in good.payload)
    one, infinity = f"{0x3F800000:032b}", f"{0x7F800000:032b}"
    assert bits.count(one) == 1
    poisoned = int(bits.replace(one, infinity), 2).to_bytes(len(good.payload), "big")
    workshop.send("a", replace(good, payload=poisoned))
    assert last(workshop) == (Outcome.REJECTED, Refusal.NOT_FINITE)


@pytest.mark.parametrize("cut", [0, 1, 20, -1])
def test_a_truncated_message_is_counted_and_harmless(
    workshop: Workshop, bundle: Bundle, cut: int
) -> None:
    workshop.deliver(("a", make_update(bundle, 1).encode()[:cut]))
    assert workshop.refused(Refusal.MALFORMED) == 1
    assert answers(workshop, "a") == []
    assert len(workshop.outbox.acknowledged) == 1
    workshop.send("a", make_update(bundle, 1))
    assert last(workshop) == ACCEPTED


def test_an_oversize_message_is_counted_and_harmless(workshop: Workshop) -> None:
    workshop.deliver(("a", bytes(MAX_MESSAGE_BYTES + 1)))
    assert workshop.refused(Refusal.OVERSIZE) == 1
    assert len(workshop.outbox.acknowledged) == 1


def test_replayed_and_reordered_updates_count_once(workshop: Workshop, bundle: Bundle) -> None:
    workshop.send("a", make_update(bundle, 3), make_update(bundle, 1))
    workshop.send("a", make_update(bundle, 1), make_update(bundle, 2), make_update(bundle, 3))
    found = [receipt.outcome for receipt in workshop.outbox.receipts("a")]
    duplicate = Outcome.DUPLICATE
    assert found == [Outcome.ACCEPTED, Outcome.ACCEPTED, duplicate, Outcome.ACCEPTED, duplicate]
    assert workshop.engine.tasks[bundle.task].pending == 3


# The norm


def test_a_norm_far_above_the_usual_is_refused_for_good(workshop: Workshop, bundle: Bundle) -> None:
    warm_up(workshop, bundle)
    workshop.send("a", of_norm(bundle, 1, 4.0), of_norm(bundle, 2, 40.0))
    assert answers(workshop, "a") == [ACCEPTED, (Outcome.REJECTED, Refusal.NORM)]
    assert workshop.refused(Refusal.NORM) == 1
    workshop.send("a", of_norm(bundle, 2, 1.0))
    assert last(workshop) == (Outcome.REJECTED, Refusal.NORM)


def test_until_enough_is_known_only_the_fixed_bound_counts(
    workshop: Workshop, bundle: Bundle
) -> None:
    workshop.send("a", of_norm(bundle, 1, 1.0), of_norm(bundle, 2, 900.0))
    workshop.send("b", of_norm(bundle, 1, 1100.0))
    assert answers(workshop, "a") == [ACCEPTED, ACCEPTED]
    assert last(workshop, "b") == (Outcome.REJECTED, Refusal.NORM)


def test_the_bound_is_the_same_after_a_restart(tmp_path: Path, bundle: Bundle) -> None:
    rule = Rule(buffer_size=4)
    with open_workshop(tmp_path / "data", admission=POLICY, rule=rule) as workshop:
        workshop.engine.start()
        workshop.engine.register(bundle)
        for sequence, norm in enumerate((0.1, 0.2, 1.0, 1.0, 1.0, 2.0), start=1):
            workshop.send(f"first-{sequence}", of_norm(bundle, sequence, norm))
        warm_up(workshop, bundle)
        before = workshop.engine.tasks[bundle.task].norms
    with open_workshop(tmp_path / "data", admission=POLICY, rule=rule) as workshop:
        workshop.engine.start()
        assert workshop.engine.tasks[bundle.task].norms == before
        bound = workshop.instruments.registry.get_sample_value(
            "rivulet_norm_bound", {"task": bundle.task}
        )
        assert bound == POLICY.norm_bound(before)
        newest = workshop.engine.tasks[bundle.task].version
        workshop.send("a", replace(of_norm(bundle, 1, 40.0), base_version=newest))
        assert last(workshop) == (Outcome.REJECTED, Refusal.NORM)


def test_a_batch_that_the_database_refuses_moves_neither_bound_nor_rate(
    workshop: Workshop, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_intake: object) -> list[int]:
        raise LedgerUnavailableError("disk full")

    updates = [make_update(bundle, number) for number in (1, 2, 3)]
    task = workshop.engine.tasks[bundle.task]
    before = task.norms
    with monkeypatch.context() as patch:
        patch.setattr(workshop.ledger, "take_in", refuse)
        for _ in range(5):
            with pytest.raises(LedgerUnavailableError):
                workshop.send("a", *updates)
    assert task.norms is before
    workshop.send("a", *updates)
    assert answers(workshop, "a") == [ACCEPTED] * 3


def test_another_way_of_training_starts_the_bound_anew(workshop: Workshop, bundle: Bundle) -> None:
    warm_up(workshop, bundle)
    workshop.engine.steer(bundle.task, Steering(rule={"max_wait_s": 9.0}))
    assert workshop.engine.tasks[bundle.task].norms.total == POLICY.norm_warmup
    workshop.engine.steer(bundle.task, Steering(training={"learning_rate": 0.9}))
    assert workshop.engine.tasks[bundle.task].norms.total == 0
    assert workshop.ledger.norms(bundle.task) == {}
    workshop.send("a", of_norm(bundle, 1, 40.0))
    assert last(workshop) == ACCEPTED


# The rate


def test_too_fast_is_refused_for_the_moment_and_counts_once_in_the_end(
    workshop: Workshop, bundle: Bundle
) -> None:
    """Also when both copies of an update that was refused arrive later."""
    workshop.send("a", *(make_update(bundle, number) for number in (1, 2, 3, 4, 4)))
    rate = Outcome.REJECTED, Refusal.RATE
    assert answers(workshop, "a") == [*[ACCEPTED] * 3, rate, rate]
    assert workshop.refused(Refusal.RATE) == 2
    workshop.clock.now += INTERVAL_S
    workshop.send("a", make_update(bundle, 4), make_update(bundle, 4))
    assert answers(workshop, "a")[5:] == [ACCEPTED, (Outcome.DUPLICATE, None)]
    assert len(workshop.reports.updates(bundle.task)) == 4
    (report,) = workshop.reports.devices(bundle.task)
    assert (report.accepted, report.rejected, report.duplicate) == (4, 2, 1)


def test_a_retransmission_does_not_count_for_the_rate(workshop: Workshop, bundle: Bundle) -> None:
    workshop.send("a", make_update(bundle, 1), *[make_update(bundle, 1)] * 20)
    workshop.send("a", make_update(bundle, 2), make_update(bundle, 3))
    assert answers(workshop, "a")[-2:] == [ACCEPTED] * 2


def test_bad_updates_count_for_the_rate(workshop: Workshop, bundle: Bundle) -> None:
    """Each leaves a row in the ledger; a device must not make them without end."""
    bad = [replace(make_update(bundle, number), payload=b"") for number in range(1, 100)]
    workshop.send("a", *bad)
    reasons = [receipt.reason for receipt in workshop.outbox.receipts("a")]
    assert reasons == [Refusal.WRONG_SHAPE] * 3 + [Refusal.RATE] * 96


def test_a_flood_leaves_a_row_for_what_is_decided_only(workshop: Workshop, bundle: Bundle) -> None:
    workshop.send("a", *(make_update(bundle, number) for number in range(1, 500)))
    keys = [UpdateKey(bundle.task, "a", number) for number in range(1, 500)]
    assert len(workshop.ledger.decisions(keys)) == 3


@pytest.mark.parametrize("jump_s", [-1e8, -3600.0, 3600.0, 1e8])
def test_a_clock_that_jumps_locks_nobody_out_and_lets_no_flood_in(
    workshop: Workshop, bundle: Bundle, jump_s: float
) -> None:
    def accepted(first: int, count: int) -> int:
        workshop.send("a", *(make_update(bundle, first + n) for n in range(count)))
        found = workshop.outbox.receipts("a")[-count:]
        return sum(receipt.outcome is Outcome.ACCEPTED for receipt in found)

    assert accepted(1, 10) == 3
    workshop.clock.now += jump_s
    assert accepted(11, 10) <= 3
    workshop.clock.now += INTERVAL_S
    assert accepted(21, 1) == 1
    workshop.engine.tick()
    assert workshop.engine.next_due() <= workshop.clock.now + 1e8 + 1e4


def test_only_the_wall_clock_may_jump_at_will(workshop: Workshop, bundle: Bundle) -> None:
    """The rate is by the clock that does not jump; the other one only says when."""
    start = workshop.clock.now
    workshop.clock.monotonic = lambda: start  # type: ignore[method-assign]
    for sequence, jump_s in enumerate((0.0, 1e9, -2e9, 1e9), start=1):
        workshop.clock.now += jump_s
        workshop.send("a", make_update(bundle, sequence))
    assert answers(workshop, "a") == [*[ACCEPTED] * 3, (Outcome.REJECTED, Refusal.RATE)]


def test_throughput_of_a_clock_that_was_ahead_is_tidied_away(
    workshop: Workshop, bundle: Bundle
) -> None:
    workshop.clock.now += 1e8
    workshop.send("a", make_update(bundle, 1))
    workshop.clock.now -= 1e8
    workshop.send("b", make_update(bundle, 1))
    workshop.ledger.tidy(workshop.clock.now)
    seconds = [t.key for t in workshop.reports.tallies(bundle.task) if t.kind == "second"]
    assert seconds == [int(workshop.clock.now)]


# Enrolment


def test_devices_that_are_not_enrolled_wait_and_leave_no_trace(
    tmp_path: Path, bundle: Bundle
) -> None:
    enrolled = {"a"}
    with open_workshop(tmp_path / "data", enrolled=lambda: enrolled) as workshop:
        workshop.engine.start()
        workshop.engine.register(bundle)
        status = Status(state=StatusState.ONLINE, agent="0.1.0", runtime="onnx").encode()
        stranger = topics.status("stranger")
        workshop.engine.ingest([workshop.outbox.inbound("stranger", status, topic=stranger)])
        elsewhere = replace(make_update(bundle, 2), task="0" * 32)
        workshop.send("stranger", make_update(bundle, 1), elsewhere)
        workshop.send("a", make_update(bundle, 1))
        refused = Outcome.REJECTED, Refusal.UNKNOWN_DEVICE
        assert answers(workshop, "stranger") == [refused, refused]
        assert answers(workshop, "a") == [ACCEPTED]
        assert workshop.refused(Refusal.UNKNOWN_DEVICE) == 3
        assert [report.device for report in workshop.reports.devices(bundle.task)] == ["a"]
        enrolled.add("stranger")
        workshop.send("stranger", make_update(bundle, 1))
        assert last(workshop, "stranger") == ACCEPTED
        enrolled.clear()
        workshop.send("a", make_update(bundle, 1))
        assert last(workshop, "a") == (Outcome.DUPLICATE, None)


def test_every_refusal_tells_the_device_what_to_do() -> None:
    for reason in Refusal:
        receipt = Receipt(
            task="0" * 32, sequence=1, outcome=Outcome.REJECTED, version=0, reason=reason
        )
        assert Receipt.decode(receipt.encode()).reason is reason
        assert reason.advice.endswith(".")
