"""What is read of a task's past: only what its ancestry names."""

from dataclasses import replace

import pytest

from aggregator.ledger import (
    CompactionRecord,
    Event,
    Exclusion,
    Ledger,
    LineageRecord,
    Origin,
    OriginKind,
    Reports,
    Stretch,
    TaskRecord,
    ancestry_of,
)
from tests.aggregator.ledger.conftest import TASK, intake, new_update, version

A = Exclusion(devices=("a",))
ALL = (Stretch(0, 100),)


@pytest.fixture
def ids(ledger: Ledger, task: TaskRecord) -> list[int]:
    """Four versions of an update each, of a, b, a, a; version 5 goes back to 2; one waits."""
    found = ledger.take_in(intake(*(new_update(d, n) for n, d in enumerate("abaab", start=1))))
    for number in range(1, 5):
        ledger.add_version(version(number, updates=1), [found[number - 1]], {0: 1})
    origin = Origin(kind=OriginKind.ROLLBACK, of=2, before="0" * 64)
    ledger.add_version(replace(version(5), origin=origin.to_dict()), [], {})
    return found


@pytest.mark.usefixtures("task", "ids")
def test_origins_are_kept_and_merges_have_none(ledger: Ledger) -> None:
    assert {v: o.of for v, o in ledger.origins(TASK).items()} == {5: 2}
    assert ledger.newest_version(TASK).origin is not None
    assert ledger.version(TASK, 4) == version(4, updates=1)
    assert ledger.version(TASK, 6) is None


@pytest.mark.usefixtures("task")
def test_the_update_before_is_one_of_the_ancestry(ledger: Ledger, ids: list[int]) -> None:
    def before(ancestry: tuple[Stretch, ...]) -> tuple[int, int] | None:
        found = ledger.merged_before(TASK, "a", ancestry)
        return None if found is None else (found[0].id, found[1])

    origins = ledger.origins(TASK)
    assert before(ancestry_of(origins, 4)) == (ids[3], 4)
    assert before(ancestry_of(origins, 3)) == (ids[2], 3)
    # What was gone back on was never said.
    assert before(ancestry_of(origins, 5)) == (ids[0], 1)
    assert before(ancestry_of(origins, 5, [A])) is None
    late = Exclusion(devices=("a",), since=1000.5 + 4)
    assert before(ancestry_of(origins, 4, [late])) == (ids[2], 3)


@pytest.mark.usefixtures("task")
def test_what_was_left_out_does_not_count_as_sent(ledger: Ledger, ids: list[int]) -> None:
    assert ledger.count_before(TASK, "a", ids[3], ALL) == 2
    # It was sent, whatever became of it; but what is left out is as if it had not been.
    assert ledger.count_before(TASK, "a", ids[4], ancestry_of(ledger.origins(TASK), 5)) == 3
    assert ledger.count_before(TASK, "a", ids[4], ancestry_of({}, 4, [A])) == 0
    assert ledger.count_before(TASK, "a", ids[4], (Stretch(0, 3, frozenset([A])),)) == 1
    assert ledger.count_before(TASK, "b", ids[4] + 1, ancestry_of({}, 4, [A])) == 2


@pytest.mark.usefixtures("task", "ids")
def test_ancestries_are_the_same_if_they_merged_the_same(ledger: Ledger) -> None:
    plain = ancestry_of({}, 4)
    assert ledger.are_the_same(TASK, plain, plain)
    assert not ledger.are_the_same(TASK, plain, ancestry_of({}, 4, [A]))
    nobody = Exclusion(devices=("c",))
    assert ledger.are_the_same(TASK, plain, ancestry_of({}, 4, [nobody]))
    late = Exclusion(devices=("a",), since=1000.5 + 4)
    assert ledger.are_the_same(TASK, ancestry_of({}, 3), ancestry_of({}, 3, [late]))
    assert not ledger.are_the_same(TASK, plain, ancestry_of({}, 4, [late]))


@pytest.mark.usefixtures("task", "ids")
def test_what_an_exclusion_takes_is_counted(ledger: Ledger) -> None:
    origins = ledger.origins(TASK)
    assert ledger.left_out(TASK, ancestry_of(origins, 4), A) == (3, 3, 1, 4)
    assert ledger.left_out(TASK, ancestry_of(origins, 5), A) == (1, 1, 1, 1)
    assert ledger.left_out(TASK, ALL, Exclusion(devices=("c",))) == (0, 0, 0, 0)


@pytest.mark.usefixtures("task")
def test_what_waits_is_found(ledger: Ledger, ids: list[int]) -> None:
    assert ledger.waiting_among(TASK, Exclusion(devices=("b",))) == [ids[4]]
    assert ledger.waiting_among(TASK, A) == []


@pytest.mark.usefixtures("task")
def test_lineages_are_kept(ledger: Ledger) -> None:
    record = LineageRecord(
        task=TASK,
        excluded=A.to_dict(),
        version=4,
        digest="1" * 64,
        sha256="2" * 64,
        size_bytes=9,
        changes={"updates": 3},
        created_at=5.0,
    )
    number = ledger.add_lineage(record)
    assert ledger.lineages(TASK) == [replace(record, id=number)]
    assert ledger.lineage(TASK, number) == replace(record, id=number)
    assert ledger.lineages_of_blob("2" * 64) == [number]
    ledger.forget_lineage(TASK, number)
    assert ledger.lineages(TASK) == []
    assert ledger.lineage(TASK, number) is None


@pytest.mark.usefixtures("task")
def test_nothing_is_dropped_at_first(ledger: Ledger) -> None:
    assert ledger.compaction(TASK) == CompactionRecord(task=TASK)


@pytest.mark.usefixtures("task", "ids")
def test_payloads_are_dropped_and_rows_stay(ledger: Ledger, reports: Reports) -> None:
    warned = CompactionRecord(task=TASK, warned_to=2, warned_at=5.0)
    ledger.set_compaction(warned, Event(at=5.0, kind="payloads-expire", detail="x", task=TASK))
    assert ledger.compaction(TASK) == warned
    assert reports.events()[-1].kind == "payloads-expire"
    dropped = replace(warned, dropped_to=2)
    ledger.set_compaction(dropped, None)
    ledger.drop_payloads(TASK, first=1, last=2)
    assert ledger.compaction(TASK) == replace(dropped, swept_to=2)
    left = [bool(ledger.members(TASK, version)[0].payload) for version in range(1, 5)]
    assert left == [False, False, True, True]
    assert ledger.members(TASK, None)[0].payload
    assert len(reports.updates(TASK)) == 5


@pytest.mark.usefixtures("task")
def test_what_is_old_is_found(ledger: Ledger, ids: list[int]) -> None:
    # Version n was made at 1000 + n.
    assert [ledger.newest_before(TASK, 1000.0 + at) for at in (0, 1, 2.5, 5.5)] == [0, 0, 2, 5]
    assert ledger.count_merged(TASK, first=2, last=5) == 3
    assert ledger.count_merged(TASK, first=6, last=9) == 0
    assert ledger.oldest_merged(TASK, after=1) == (ids[1], 1000.5 + 2)
    assert ledger.oldest_merged(TASK, after=4) is None


@pytest.mark.usefixtures("ids")
def test_a_rule_that_looks_back_is_noticed(ledger: Ledger, task: TaskRecord) -> None:
    assert not ledger.needs_old_payloads(TASK, after=0)
    ledger.add_version(replace(version(6), rule={"kind": "ca2fl"}), [], {})
    assert ledger.needs_old_payloads(TASK, after=5)
    assert not ledger.needs_old_payloads(TASK, after=6)
    ledger.steer(replace(task, rule={"kind": "ca2fl"}), Event(at=1.0, kind="x", detail="y"))
    assert ledger.needs_old_payloads(TASK, after=6)


@pytest.mark.usefixtures("task", "ids")
def test_a_blob_is_used_by_what_names_it(ledger: Ledger) -> None:
    assert ledger.is_used(version(1).sha256 or "")
    assert not ledger.is_used("e" * 64)


@pytest.mark.usefixtures("task", "ids")
def test_merges_that_lose_all_they_took_are_found(ledger: Ledger) -> None:
    plain = ancestry_of({}, 4)
    assert ledger.emptied(TASK, plain, ancestry_of({}, 4, [A])) == [1, 3, 4]
    assert ledger.emptied(TASK, plain, plain) == []
    origins = ledger.origins(TASK)
    gone = ancestry_of(origins, 5, [A])
    assert ledger.emptied(TASK, ancestry_of(origins, 5), gone) == [1]
