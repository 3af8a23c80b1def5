"""Payloads go when the operator wished it and was told; what is left is said and comes out."""

from contextlib import suppress
from pathlib import Path

import pytest

from aggregator.compaction import reach
from aggregator.fold import Fold, FoldError
from aggregator.ledger import CompactionRecord, Exclusion
from aggregator.orders import Steering
from aggregator.refolding import refold
from aggregator.retention import DAY_S, Retention
from aggregator.snapshots import encode_snapshot
from aggregator.verification import verify
from tests.aggregator.test_crashes import Crash, Fuse
from tests.aggregator.training import RULES, go_on
from tests.aggregator.workshop import ManualClock, Workshop, open_workshop
from wire.bundle import Bundle

KEEP = Retention(keep_payload_days=30, warn_days=7, keep_snapshots=1, keep_every=0)
START = 1_800_000_000.0


def begin(workshop: Workshop, bundle: Bundle) -> None:
    workshop.engine.start()
    workshop.engine.register(bundle)


def pass_days(workshop: Workshop, days: float) -> None:
    workshop.clock.now += days * DAY_S
    workshop.engine.tick()


def events(workshop: Workshop, kind: str) -> list[tuple[float, str]]:
    days = [((e.at - START) / DAY_S, e) for e in workshop.reports.events() if e.kind == kind]
    return [(round(at, 3), e.detail) for at, e in days]


def payloads(workshop: Workshop, bundle: Bundle) -> list[int]:
    """Versions whose members have their payloads."""
    newest = workshop.ledger.newest_version(bundle.task).version
    return [
        version
        for version in range(1, newest + 1)
        if all(member.payload for member in workshop.ledger.members(bundle.task, version))
    ]


def test_by_default_everything_is_kept_and_that_is_said(workshop: Workshop, bundle: Bundle) -> None:
    go_on(workshop, bundle, "abcabc", first=1)
    pass_days(workshop, 10_000)
    pass_days(workshop, 10_000)
    assert payloads(workshop, bundle) == [1, 2]
    found = reach(workshop.ledger, Retention(), bundle.task)
    assert (found.from_start, found.from_snapshot, found.next_loss_to) == (0, 0, None)
    assert found.oldest_update == 1
    assert found.describe() == (
        "Every version can be made again from the start, and every update left out."
    )


def test_payloads_go_after_their_days_and_a_warning(tmp_path: Path, bundle: Bundle) -> None:
    with open_workshop(tmp_path / "data", retention=KEEP) as workshop:
        begin(workshop, bundle)
        go_on(workshop, bundle, "abcabc", first=1)
        coming = reach(workshop.ledger, KEEP, bundle.task)
        assert (coming.next_loss_to, coming.next_loss_at) == (1, START + 30 * DAY_S)
        pass_days(workshop, 10)
        go_on(workshop, bundle, "abc", first=7)
        pass_days(workshop, 12.9)
        assert events(workshop, "payloads-expire") == []
        pass_days(workshop, 0.2)
        ((at, warning),) = events(workshop, "payloads-expire")
        assert at == pytest.approx(23.1)
        assert warning.startswith("in 7 days the payloads of 6 updates will be dropped, of merges")
        warned = reach(workshop.ledger, KEEP, bundle.task)
        assert (warned.next_loss_to, warned.next_loss_updates) == (2, 6)
        assert warned.next_loss_at == pytest.approx(START + 30.1 * DAY_S)
        assert "Next the payloads of 6 updates go, up to version 2, not before 20" in (
            warned.describe()
        )
        pass_days(workshop, 6.9)
        assert payloads(workshop, bundle) == [1, 2, 3]
        pass_days(workshop, 0.2)
        assert payloads(workshop, bundle) == [3]
        assert events(workshop, "payloads-dropped")[0][1].startswith("the payloads of 6 updates")
        assert len(events(workshop, "payloads-expire")) == 1
        found = reach(workshop.ledger, KEEP, bundle.task)
        assert (found.dropped_to, found.from_start, found.from_snapshot) == (2, None, 2)
        assert (found.oldest_update, found.oldest_update_at) == (7, START + 10 * DAY_S)
        assert found.describe().startswith(
            "Versions from 2 on can be made again, and updates merged after version 2 left out."
        )
        # The rows stay.
        assert len(workshop.reports.updates(bundle.task)) == 9
        # An idle task is no exception.
        pass_days(workshop, 60)
        pass_days(workshop, 7.1)
        assert payloads(workshop, bundle) == []


@pytest.mark.parametrize("name", [name for name in RULES if name != "cached"])
def test_what_is_left_comes_out_and_the_rest_is_said(
    tmp_path: Path, bundle: Bundle, name: str
) -> None:
    with open_workshop(tmp_path / "data", rule=RULES[name], retention=KEEP) as workshop:
        begin(workshop, bundle)
        go_on(workshop, bundle, "abcabcabc", first=1)
        state = encode_snapshot(workshop.engine.tasks[bundle.task].state)
        pass_days(workshop, 29)
        pass_days(workshop, 8)
        go_on(workshop, bundle, "aadbcdbbc", first=20)
        task = workshop.engine.tasks[bundle.task]
        workshop.engine.save_all()  # What stands for the payloads stays, however few are kept.
        assert [version for version, _ in workshop.ledger.snapshots(bundle.task)] == [0, 3, 6]
        specs = bundle.manifest.federated
        fold = Fold(workshop.ledger, bundle.task, specs)
        assert encode_snapshot(fold.rebuild(workshop.blobs, 3).state) == state
        with pytest.raises(FoldError, match="payload of update 1 of device a was dropped"):
            fold.rebuild(workshop.blobs, 2)
        with pytest.raises(FoldError, match="was dropped"):
            workshop.engine.rollback(bundle.task, 1)
        for _ in range(2):
            found = verify(workshop.ledger, workshop.blobs, task.record)
            assert found.differences == []
            assert (found.first, found.versions) == (3, task.version - 3)
            assert "versions 0 to 2 cannot be made again" in found.unreachable[0]
            if task.origin is None:
                workshop.engine.rollback(bundle.task, 3)
        with pytest.raises(FoldError, match="3 of these updates, of merges up to version 3,"):
            refold(workshop.ledger, workshop.blobs, bundle.task, specs, Exclusion(devices=("a",)))
        # Going back has left nothing but those: so the last one of d before that.
        workshop.engine.rollback(bundle.task, 6)
        without = Exclusion(devices=("d",))
        made = refold(workshop.ledger, workshop.blobs, bundle.task, specs, without)
        assert (made.changes["updates"], made.changes["first_version"]) == (2, 4)
        lineage = made.keep(workshop.ledger, workshop.blobs, task=bundle.task, at=1.0)
        workshop.engine.promote(bundle.task, lineage.id)
        go_on(workshop, bundle, "bcd", first=40)
        found = verify(workshop.ledger, workshop.blobs, task.record)
        assert (found.differences, len(found.unreachable)) == ([], 1)
        # What stands on the promoted version cannot be folded again behind it.
        with pytest.raises(FoldError, match="cannot be left out any more"):
            refold(workshop.ledger, workshop.blobs, bundle.task, specs, Exclusion(devices=("b",)))
        assert reach(workshop.ledger, KEEP, bundle.task).fixed_to == task.version - 1
    with open_workshop(tmp_path / "data", rule=RULES[name], retention=KEEP) as workshop:
        workshop.engine.start()
        assert workshop.engine.tasks[bundle.task].version == 10


def test_going_back_behind_what_was_dropped_keeps_what_it_went_back_to(
    tmp_path: Path, bundle: Bundle
) -> None:
    with open_workshop(tmp_path / "data", retention=KEEP) as workshop:
        begin(workshop, bundle)
        go_on(workshop, bundle, "abcabcabc", first=1)
        pass_days(workshop, 20)
        workshop.engine.rollback(bundle.task, 1)
        go_on(workshop, bundle, "abc", first=20)
        pass_days(workshop, 3.5)
        pass_days(workshop, 7)
        assert reach(workshop.ledger, KEEP, bundle.task).dropped_to == 3
        workshop.engine.save_all()
        # Version 3 stands for what was gone back on, version 1 for what goes on.
        assert [v for v, _ in workshop.ledger.snapshots(bundle.task)] == [0, 1, 3, 5]
        task = workshop.engine.tasks[bundle.task]
        found = verify(workshop.ledger, workshop.blobs, task.record)
        assert (found.differences, found.last) == ([], 5)
        specs, without = bundle.manifest.federated, Exclusion(since=START + DAY_S)
        made = refold(workshop.ledger, workshop.blobs, bundle.task, specs, without)
        first = Fold(workshop.ledger, bundle.task, specs).rebuild(workshop.blobs, 1)
        assert made.snapshot == encode_snapshot(first.state)


def test_a_rule_that_looks_back_keeps_its_payloads(tmp_path: Path, bundle: Bundle) -> None:
    with open_workshop(tmp_path / "data", rule=RULES["cached"], retention=KEEP) as workshop:
        begin(workshop, bundle)
        go_on(workshop, bundle, "abcabc", first=1)
        pass_days(workshop, 100)
        pass_days(workshop, 100)
        assert payloads(workshop, bundle) == [1, 2]
        assert "Payloads are kept: rule ca2fl" in (
            reach(workshop.ledger, KEEP, bundle.task).describe()
        )
        # Under another rule they go, once its versions stand on it.
        workshop.engine.steer(bundle.task, Steering(rule={"kind": "fedbuff"}))
        go_on(workshop, bundle, "abc", first=7)
        pass_days(workshop, 100)
        pass_days(workshop, 8)
        assert payloads(workshop, bundle) == []
        # Chosen again, it begins anew.
        workshop.engine.steer(bundle.task, Steering(rule={"kind": "ca2fl"}))
        go_on(workshop, bundle, "abcabc", first=10)
        task = workshop.engine.tasks[bundle.task]
        assert task.version == 5
        assert verify(workshop.ledger, workshop.blobs, task.record).differences == []


def test_a_warning_is_void_when_the_setting_changes(tmp_path: Path, bundle: Bundle) -> None:
    clock = ManualClock()
    with open_workshop(tmp_path / "data", retention=KEEP, clock=clock) as workshop:
        begin(workshop, bundle)
        go_on(workshop, bundle, "abc", first=1)
        pass_days(workshop, 25)
        assert len(events(workshop, "payloads-expire")) == 1
    longer = Retention(keep_payload_days=365)
    with open_workshop(tmp_path / "data", retention=longer, clock=clock) as workshop:
        workshop.engine.start()
        pass_days(workshop, 20)
        assert payloads(workshop, bundle) == [1]
        assert reach(workshop.ledger, longer, bundle.task).next_loss_at == START + 365 * DAY_S


def test_death_at_every_step_keeps_a_snapshot_for_what_is_gone(
    tmp_path: Path, bundle: Bundle
) -> None:
    steps = 0
    while True:
        folder, clock, fuse = tmp_path / f"at-{steps}", ManualClock(), Fuse(steps)
        with open_workshop(folder, retention=KEEP, clock=clock) as workshop:
            begin(workshop, bundle)
            go_on(workshop, bundle, "abcabcabc", first=1)
            state = encode_snapshot(workshop.engine.tasks[bundle.task].state)
            pass_days(workshop, 25)
            for name in ("add_snapshot", "set_compaction", "drop_payloads"):
                setattr(workshop.ledger, name, fuse.around(getattr(workshop.ledger, name)))
            workshop.blobs.put = fuse.around(workshop.blobs.put)  # type: ignore[method-assign]
            with suppress(Crash):
                pass_days(workshop, 8)
        with open_workshop(folder, retention=KEEP, clock=clock) as workshop:
            workshop.engine.start()
            pass_days(workshop, 0.1)
            assert encode_snapshot(workshop.engine.tasks[bundle.task].state) == state
            assert payloads(workshop, bundle) == []
            record = workshop.ledger.compaction(bundle.task)
            assert isinstance(record, CompactionRecord)
            assert (record.dropped_to, record.swept_to) == (3, 3)
        if not fuse.blown:
            break
        steps += 1
    assert steps >= 8


def test_days_out_of_range_are_refused() -> None:
    for values in ({"keep_payload_days": -1.0}, {"warn_days": float("nan")}):
        with pytest.raises(ValueError, match="expected 0 to 36500"):
            Retention(**values)  # type: ignore[arg-type]
