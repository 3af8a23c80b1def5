"""What must hold whatever happens to the device: nothing is lost, nothing is counted twice."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

import edge_agent.trainer
from edge_agent.database import Database
from edge_agent.local_update import LocalUpdate, conclude
from tests.edge_agent.fakes import Device
from tests.edge_agent.tiny_task import TRAINING, TinyTask
from wire.codec import decode_delta
from wire.delta import Delta, add, squared_norm
from wire.messages import Outcome, Refusal, Update
from wire.policy import CodecMode, CodecPolicy

HISTORY = (3, 14, 15, 9, 26, 5, 35, 8)
CODECS = tuple(
    replace(policy, residual_keep=1.0, residual_bound=1e9)
    for policy in (
        CodecPolicy(mode=CodecMode.TOP_K, bits=1, density=0.1),
        CodecPolicy(mode=CodecMode.LOW_RANK, bits=4, rank=1),
        CodecPolicy(mode=CodecMode.RAW),
        CodecPolicy(mode=CodecMode.AUTO, nmse=0.2),
    )
)


class Killed(BaseException):
    """The process ends here."""


@dataclass
class Ledger:
    """What was learned, as the training function gave it, and what an aggregator accepted."""

    learned: list[Delta] = field(default_factory=list)
    accepted: dict[int, Update] = field(default_factory=dict)

    def deliver(self, update: Update) -> Outcome:
        """What an aggregator does with an update that it may have seen before."""
        if update.sequence in self.accepted:
            assert self.accepted[update.sequence] == update
            return Outcome.DUPLICATE
        self.accepted[update.sequence] = update
        return Outcome.ACCEPTED


@pytest.fixture
def ledger(monkeypatch: pytest.MonkeyPatch) -> Ledger:
    kept = Ledger()

    def spy(*arguments: object) -> LocalUpdate:
        result = conclude(*arguments)  # type: ignore[arg-type]
        kept.learned.append(result.delta)
        return result

    monkeypatch.setattr(edge_agent.trainer, "conclude", spy)
    return kept


def total(deltas: list[Delta]) -> Delta:
    result: Delta = {}
    for delta in deltas:
        result = add(result, delta)
    return result


def check_mass(device: Device, ledger: Ledger) -> None:
    """Accepted + waiting + residual = learned, over every row of every parameter."""
    specs = device.task.manifest.federated
    sent = {**ledger.accepted}
    for sequence in waiting(device):
        entry = device.store.entry(sequence)
        assert entry is not None
        sent[sequence] = Update.decode(entry.payload)
    found = total([decode_delta(update.payload, specs) for update in sent.values()])
    found = add(found, device.residual())
    learned = total(ledger.learned)
    error = squared_norm(add(learned, found, -1.0))
    assert error <= 1e-9 * max(squared_norm(learned), 1e-12)


def waiting(device: Device) -> list[int]:
    rows = device.store._database.execute("SELECT sequence FROM outbox ORDER BY sequence")
    return [sequence for (sequence,) in rows]


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.mode.value)
@pytest.mark.parametrize("seed", range(4))
def test_mass_is_conserved_over_any_receipts_and_restarts(
    tmp_path: Path, task: TinyTask, ledger: Ledger, codec: CodecPolicy, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    device = Device(tmp_path, task, seed=seed)
    device.ready(*HISTORY)
    device.hear(task.announce(1, codec=codec))
    for _ in range(40):
        match rng.integers(6):
            case 0:
                device.clock.now += 1.0
                device.update()
            case 1:
                ahead(device, ledger, rng)
            case 2:
                answer(device, ledger, rng, rejected=False)
            case 3:
                answer(device, ledger, rng, rejected=True)
            case 4:
                device.log(int(rng.integers(60)))
            case _:
                device.restart()
                device.agent.connected()
                device.hear(task.announce(1, codec=codec))
        check_mass(device, ledger)
    assert ledger.learned


def ahead(device: Device, ledger: Ledger, rng: np.random.Generator) -> None:
    """An update whose work is given away before some answers come."""
    device.clock.now += 1.0
    base = device.agent.begin_update(early=True)
    assert base is not None
    device.agent.train_ahead(base)
    for _ in range(rng.integers(4)):
        answer(device, ledger, rng, rejected=bool(rng.integers(2)))
    assert device.agent.finish_update(base) is not None


def answer(device: Device, ledger: Ledger, rng: np.random.Generator, *, rejected: bool) -> None:
    """Answer any update ever published, waiting or not, sometimes twice."""
    if not device.wire.updates:
        return
    update = device.wire.updates[rng.integers(len(device.wire.updates))]
    known = update.sequence in ledger.accepted
    if rejected and not known:
        device.answer(update.sequence, Outcome.REJECTED, Refusal.TOO_STALE)
    elif known or update.sequence in waiting(device):
        device.answer(update.sequence, ledger.deliver(update))
    if known and rng.integers(2):
        device.answer(update.sequence, Outcome.DUPLICATE)


def test_a_rejected_update_travels_with_a_later_one(
    tmp_path: Path, task: TinyTask, ledger: Ledger
) -> None:
    device = Device(tmp_path, task)
    device.ready(*HISTORY)
    device.hear(task.announce(1, codec=CODECS[2]))
    first = device.update()
    assert squared_norm(device.residual()) == 0.0
    device.answer(first.sequence, Outcome.REJECTED, Refusal.TOO_STALE)
    returned = squared_norm(device.residual())
    assert returned == pytest.approx(squared_norm(device.decoded(first)))
    device.answer(first.sequence, Outcome.REJECTED, Refusal.TOO_STALE)
    assert squared_norm(device.residual()) == returned
    assert not waiting(device)
    for _ in range(30):
        device.clock.now += 1.0
        ledger.deliver(device.update())
        device.answer_all()
    assert squared_norm(device.residual()) < 1e-3 * returned
    check_mass(device, ledger)


def test_an_update_that_is_too_large_does_not_come_back(tmp_path: Path, task: TinyTask) -> None:
    device = Device(tmp_path, task)
    device.ready(*HISTORY)
    first = device.update()
    left_out = device.residual()
    device.answer(first.sequence, Outcome.REJECTED, Refusal.NORM)
    assert squared_norm(add(left_out, device.residual(), -1.0)) == 0.0
    assert not waiting(device)
    assert device.store.counters()["rejected"] == 1


def test_lost_and_doubled_receipts_change_nothing(
    tmp_path: Path, task: TinyTask, ledger: Ledger
) -> None:
    """What the aggregator has and what the device believes it has are the same in the end."""
    device = Device(tmp_path, task)
    device.ready(*HISTORY)
    for _ in range(5):
        device.clock.now += 1.0
        # The aggregator accepts it, and its receipt is lost.
        ledger.deliver(device.update())
        check_mass(device, ledger)
    residual = device.residual()
    device.clock.now += 3700.0
    device.agent.send_due()
    sent_again = device.wire.updates[5:]
    assert {update.sequence for update in sent_again} == set(ledger.accepted)
    for update in (*sent_again, *sent_again):
        assert ledger.deliver(update) is Outcome.DUPLICATE
        device.answer(update.sequence, Outcome.DUPLICATE)
    assert not waiting(device)
    assert squared_norm(add(residual, device.residual(), -1.0)) == 0.0
    check_mass(device, ledger)


@pytest.mark.parametrize("reason", [reason for reason in Refusal if reason.momentary])
def test_a_refusal_of_the_moment_keeps_the_update(
    tmp_path: Path, task: TinyTask, reason: Refusal
) -> None:
    device = Device(tmp_path, task)
    device.ready(*HISTORY)
    update = device.update()
    residual = device.residual()
    device.answer(update.sequence, Outcome.REJECTED, reason)
    assert waiting(device) == [update.sequence]
    assert squared_norm(add(residual, device.residual(), -1.0)) == 0.0
    due = device.agent.next_due(training=False)
    assert due is not None
    device.clock.now = due
    device.agent.send_due()
    assert device.wire.updates == [update, update]


def test_a_receipt_for_another_task_settles_nothing(tmp_path: Path, task: TinyTask) -> None:
    device = Device(tmp_path, task)
    device.ready(*HISTORY)
    update = device.update()
    device.answer(update.sequence, task="0" * 32)
    assert waiting(device) == [update.sequence]


# Kills. A transaction ends in one of three ways for a process that dies around it.
BEFORE, WITHIN, AFTER = "before", "within", "after"


@contextmanager
def killed_at(monkeypatch: pytest.MonkeyPatch, number: int, where: str) -> Iterator[list[int]]:
    """Kill the process around its transaction of that number, counted from now."""
    count = [0]
    original = Database.transaction

    @contextmanager
    def transaction(database: Database) -> Iterator[None]:
        count[0] += 1
        fatal = count[0] == number
        if fatal and where == BEFORE:
            raise Killed
        with original(database):
            yield
            if fatal and where == WITHIN:
                raise Killed
        if fatal and where == AFTER:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Database, "transaction", transaction)
        yield count


Step = Callable[[Device, Ledger], object]


def one_update(device: Device, _ledger: Ledger) -> None:
    device.update()


def accepted_receipt(device: Device, ledger: Ledger) -> None:
    update = device.wire.updates[-1]
    device.answer(update.sequence, ledger.deliver(update))


def rejected_receipt(device: Device, _ledger: Ledger) -> None:
    device.answer(device.wire.updates[-1].sequence, Outcome.REJECTED, Refusal.TOO_STALE)


def resend(device: Device, _ledger: Ledger) -> None:
    device.clock.now += 3700.0
    device.agent.send_due()


@pytest.mark.parametrize("where", [BEFORE, WITHIN, AFTER])
@pytest.mark.parametrize("step", [one_update, accepted_receipt, rejected_receipt, resend])
def test_killed_around_any_transaction_nothing_is_lost_or_doubled(
    tmp_path: Path,
    task: TinyTask,
    ledger: Ledger,
    monkeypatch: pytest.MonkeyPatch,
    step: Step,
    where: str,
) -> None:
    """The step is killed at its first transaction, then its second, … until it survives."""
    number = 0
    while True:
        number += 1
        device = Device(tmp_path / f"{number}", task, seed=number)
        ledger.learned.clear()
        ledger.accepted.clear()
        device.ready(*HISTORY)
        device.update()
        learned_before = len(ledger.learned)
        try:
            with killed_at(monkeypatch, number, where) as count:
                step(device, ledger)
        except Killed:
            pass
        else:
            assert count[0] == number - 1
            break
        finally:
            device.restart()
        recover(device, ledger, learned_before)
        device.store.close()
    assert number > 1


def recover(device: Device, ledger: Ledger, learned_before: int) -> None:
    """After the kill: what was not committed did not happen, and all the rest still does."""
    committed = device.store.counters()["created"]
    assert committed in (learned_before, len(ledger.learned))
    del ledger.learned[committed:]
    check_mass(device, ledger)
    device.agent.connected()
    device.clock.now += 5.0
    device.agent.send_due()
    waits = waiting(device)
    assert {update.sequence for update in device.wire.updates} >= set(waits)
    for update in device.wire.updates:
        if update.sequence in waits:
            device.answer(update.sequence, ledger.deliver(update))
    assert not waiting(device)
    check_mass(device, ledger)
    device.hear(device.task.announce(1, training=TRAINING))
    new = device.update()
    assert new.sequence not in ledger.accepted
    check_mass(device, ledger)


def test_killed_between_commit_and_publish_the_update_is_sent_by_the_next_process(
    tmp_path: Path, task: TinyTask, ledger: Ledger
) -> None:
    device = Device(tmp_path, task)
    device.ready(*HISTORY)

    def kill() -> None:
        raise Killed

    device.wire.before = kill
    with pytest.raises(Killed):
        device.update()
    device.wire.before = lambda: None
    device.restart()
    device.agent.connected()
    device.clock.now += 5.0
    device.agent.send_due()
    assert len(device.wire.updates) == 1
    assert ledger.deliver(device.wire.updates[0]) is Outcome.ACCEPTED
    device.answer_all()
    check_mass(device, ledger)


def test_a_full_disk_refuses_by_name_and_loses_nothing(
    tmp_path: Path, task: TinyTask, ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    device = Device(tmp_path, task)
    device.ready(*HISTORY)
    device.update()
    database = device.store._database
    pages = database.execute("PRAGMA page_count").fetchone()[0]
    database.execute(f"PRAGMA max_page_count = {pages}")
    failed = 0
    for _ in range(30):
        device.clock.now += 1.0
        base = device.agent.begin_update(early=True)
        assert base is not None
        if device.agent.finish_update(base) is None:
            failed += 1
            ledger.learned.pop()
    assert failed
    assert "database or disk is full" in caplog.text
    check_mass(device, ledger)
    database.execute("PRAGMA max_page_count = 1000000")
    device.update()
    check_mass(device, ledger)
