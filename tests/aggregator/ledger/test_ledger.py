"""The contract of a ledger, for every database."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.event import listen, remove
from sqlalchemy.exc import IntegrityError

from aggregator.ledger import (
    DecidedMeanwhileError,
    Decision,
    DeviceStatus,
    Event,
    Ledger,
    LedgerUnavailableError,
    MergeRecord,
    Rejection,
    Reports,
    TaskRecord,
    UpdateKey,
    VersionRecord,
    open_database,
)
from tests.aggregator.ledger.conftest import OTHER, TASK, intake, new_update, version
from wire.messages import Outcome, Refusal


def tally(reports: Reports, kind: str, task: str = TASK) -> dict[int, int]:
    return {t.key: t.value for t in reports.tallies(task) if t.kind == kind}


def test_a_task_is_kept_with_its_version_0(
    ledger: Ledger, reports: Reports, task: TaskRecord
) -> None:
    assert ledger.tasks() == [task]
    assert reports.task(TASK) == task
    assert reports.tasks() == [(task, 0)]
    assert ledger.newest_version(TASK) == version(0)
    assert [event.kind for event in reports.events()] == ["task-created"]


def test_a_task_exists_once(ledger: Ledger, task: TaskRecord) -> None:
    event = Event(at=1.0, kind="task-created", detail="x", task=TASK)
    with pytest.raises(IntegrityError):
        ledger.create_task(task, version(0), event)


def test_steering_replaces_policies_rule_and_pause(ledger: Ledger, task: TaskRecord) -> None:
    steered = TaskRecord(
        task=TASK,
        manifest=task.manifest,
        created_at=task.created_at,
        paused=True,
        training={"epochs": 9},
        codec={"bits": 8},
        rule={"buffer_size": 7},
    )
    ledger.steer(steered, Event(at=2.0, kind="steered", detail="rule", task=TASK))
    assert ledger.tasks() == [steered]


def test_unknown_tasks_have_nothing(ledger: Ledger, reports: Reports) -> None:
    assert reports.task(OTHER) is None
    assert reports.newest_version(OTHER) == -1
    assert reports.versions(OTHER) == []
    with pytest.raises(KeyError):
        ledger.newest_version(OTHER)


@pytest.mark.usefixtures("task")
def test_accepted_updates_wait_in_the_order_they_came(ledger: Ledger, reports: Reports) -> None:
    ids = ledger.take_in(intake(new_update("b", 1), new_update("a", 1), new_update("a", 2)))
    assert ids == sorted(ids)
    waiting = ledger.members(TASK, None)
    assert [update.payload for update in waiting] == [b"b/1", b"a/1", b"a/2"]
    assert [update.id for update in waiting] == ids
    assert reports.pending(TASK) == 3


@pytest.mark.usefixtures("task")
def test_an_update_is_unique_and_a_batch_is_all_or_nothing(ledger: Ledger) -> None:
    ledger.take_in(intake(new_update("a", 1)))
    with pytest.raises(DecidedMeanwhileError):
        ledger.take_in(intake(new_update("a", 2), new_update("a", 1)))
    assert [update.payload for update in ledger.members(TASK, None)] == [b"a/1"]


@pytest.mark.usefixtures("task")
def test_decisions_stand(ledger: Ledger) -> None:
    refused = UpdateKey(TASK, "a", 7)
    elsewhere = UpdateKey(OTHER, "a", 7)
    ledger.take_in(
        intake(
            new_update("a", 5),
            rejections=(
                Rejection(key=refused, reason=Refusal.NORM, at=1.0),
                Rejection(key=elsewhere, reason=Refusal.UNKNOWN_TASK, at=1.0),
            ),
        )
    )
    accepted = UpdateKey(TASK, "a", 5)
    new = [UpdateKey(TASK, "a", 6), UpdateKey(TASK, "a", 8), UpdateKey(TASK, "b", 5)]
    assert ledger.decisions([accepted, refused, elsewhere, *new]) == {
        accepted: Decision(outcome=Outcome.ACCEPTED),
        refused: Decision(outcome=Outcome.REJECTED, reason=Refusal.NORM),
    }
    assert ledger.decisions([]) == {}


@pytest.mark.usefixtures("task")
def test_refusals_for_an_unknown_task_stand_when_it_is_made(
    ledger: Ledger, reports: Reports, task: TaskRecord
) -> None:
    refused = [stranger("a", 7), stranger("a", 3), stranger("b", 1)]
    for _ in range(2):
        ledger.take_in(intake(rejections=tuple(refused)))
    assert reports.devices(TASK) == reports.devices(OTHER) == []
    assert tally(reports, "refusal", "") == {Refusal.UNKNOWN_TASK: 6}
    ledger.create_task(
        replace(task, task=OTHER),
        replace(version(0), task=OTHER),
        Event(at=1.0, kind="task-created", detail="x", task=OTHER),
    )
    stands = Decision(outcome=Outcome.REJECTED, reason=Refusal.UNKNOWN_TASK)
    new = UpdateKey(OTHER, "a", 4)
    keys = [rejection.key for rejection in refused]
    assert ledger.decisions([*keys, new]) == dict.fromkeys(keys, stands)
    assert [(d.device, d.rejected, d.last_version) for d in reports.devices(OTHER)] == [
        ("a", 2, None),
        ("b", 1, None),
    ]


@pytest.mark.usefixtures("task")
def test_a_device_that_names_tasks_without_end_fills_no_table(
    ledger: Ledger, database: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aggregator.ledger.strangers.KEPT_PER_DEVICE", 5)
    ledger.take_in(intake(rejections=(stranger("b", 1),)))
    for number in range(1, 21):
        one = Rejection(
            key=UpdateKey(f"{number:032x}", "a", 1),
            reason=Refusal.UNKNOWN_TASK,
            at=1000.0 + number,
        )
        ledger.take_in(intake(rejections=(one,)))
    with database.connect() as connection:
        kept = connection.execute(text("SELECT device, at FROM rejections ORDER BY at")).all()
        assert connection.execute(text("SELECT count(*) FROM participants")).scalar() == 0
    assert [tuple(row) for row in kept] == [("b", 1.0), *(("a", 1000.0 + n) for n in range(16, 21))]


def stranger(device: str, sequence: int) -> Rejection:
    return Rejection(key=UpdateKey(OTHER, device, sequence), reason=Refusal.UNKNOWN_TASK, at=1.0)


@pytest.mark.usefixtures("task")
def test_a_version_takes_its_updates_in_the_same_transaction(
    ledger: Ledger, reports: Reports
) -> None:
    ids = ledger.take_in(intake(*(new_update("a", n) for n in range(1, 4))))
    ledger.add_version(version(1, updates=2), ids[:2], {0: 1, 3: 1})
    assert [update.id for update in ledger.members(TASK, 1)] == ids[:2]
    assert [update.id for update in ledger.members(TASK, None)] == ids[2:]
    assert ledger.newest_version(TASK) == version(1, updates=2)
    assert tally(reports, "staleness") == {0: 1, 3: 1}


@pytest.mark.usefixtures("task")
def test_no_update_is_merged_twice(ledger: Ledger, reports: Reports) -> None:
    ids = ledger.take_in(intake(new_update("a", 1), new_update("a", 2)))
    ledger.add_version(version(1, updates=1), ids[:1], {0: 1})
    with pytest.raises(RuntimeError, match="twice"):
        ledger.add_version(version(2, updates=2), ids, {0: 2})
    assert ledger.newest_version(TASK).version == 1
    assert [update.id for update in ledger.members(TASK, None)] == ids[1:]
    assert tally(reports, "staleness") == {0: 1}


@pytest.mark.usefixtures("task")
def test_merges_are_recorded_together_or_not_at_all(ledger: Ledger, reports: Reports) -> None:
    ids = ledger.take_in(intake(*(new_update("a", n) for n in range(1, 6))))
    first = MergeRecord(version(1, updates=2), ids[:2], {0: 2})
    second = MergeRecord(version(2, updates=2), ids[2:4], {0: 1, 1: 1})
    overlapping = MergeRecord(version(2, updates=2), ids[1:3], {1: 2})
    with pytest.raises(RuntimeError, match="twice"):
        ledger.add_merges([first, overlapping])
    assert ledger.newest_version(TASK).version == 0
    assert [update.id for update in ledger.members(TASK, None)] == ids
    ledger.add_merges([first, second])
    assert [[u.id for u in ledger.members(TASK, n)] for n in (1, 2)] == [ids[:2], ids[2:4]]
    assert ledger.newest_version(TASK) == second.version
    assert tally(reports, "staleness") == {0: 3, 1: 1}


@pytest.mark.usefixtures("task")
def test_a_large_buffer_is_merged_whole(ledger: Ledger) -> None:
    ids = ledger.take_in(intake(*(new_update("a", n) for n in range(1, 1302))))
    ledger.add_version(version(1, updates=1301), ids, {0: 1301})
    assert len(ledger.members(TASK, 1)) == 1301


@pytest.mark.usefixtures("task")
def test_a_version_exists_once(ledger: Ledger) -> None:
    with pytest.raises(IntegrityError):
        ledger.add_version(version(0), [], {})


@pytest.mark.usefixtures("task")
def test_versions_are_listed_from_both_ends(ledger: Ledger, reports: Reports) -> None:
    for number in range(1, 6):
        ledger.add_version(version(number), [], {})
    assert [v.version for v in ledger.between(TASK, 2, 4)] == [2, 3, 4]
    assert [v.version.version for v in reports.versions(TASK, after=3)] == [4, 5]
    assert [v.version.version for v in reports.versions(TASK, limit=2)] == [0, 1]
    assert [v.version.version for v in reports.versions(TASK, only=3)] == [3]
    assert reports.tasks()[0][1] == reports.newest_version(TASK) == 5


@pytest.mark.usefixtures("task")
def test_a_blob_knows_its_versions(ledger: Ledger) -> None:
    same = VersionRecord(
        task=TASK,
        version=1,
        digest="1" * 64,
        sha256=version(0).sha256,
        size_bytes=10,
        rule={},
        created_at=1.0,
    )
    ledger.add_version(same, [], {})
    assert same.sha256 is not None
    assert sorted(ledger.versions_of_blob(same.sha256)) == [(TASK, 0), (TASK, 1)]
    assert ledger.versions_of_blob("f" * 64) == []


@pytest.mark.usefixtures("task")
def test_totals_follow_every_batch(ledger: Ledger, reports: Reports) -> None:
    key = UpdateKey(TASK, "a", 1)
    ledger.take_in(intake(new_update("a", 1), new_update("b", 1)))
    ledger.take_in(
        intake(
            new_update("a", 2),
            duplicates=(key, key),
            rejections=(
                Rejection(key=UpdateKey(TASK, "c", 1), reason=Refusal.NORM, at=1.0),
                Rejection(key=UpdateKey(OTHER, "c", 1), reason=Refusal.UNKNOWN_TASK, at=1.0),
            ),
            unreadable={Refusal.MALFORMED: 4},
        )
    )
    assert tally(reports, "accepted") == {0: 3}
    assert tally(reports, "bytes") == {0: 300}
    assert tally(reports, "second") == {1001: 2, 1002: 1}
    assert tally(reports, "duplicate") == {0: 2}
    assert tally(reports, "refusal") == {Refusal.NORM: 1}
    assert tally(reports, "refusal", "") == {Refusal.MALFORMED: 4, Refusal.UNKNOWN_TASK: 1}
    assert reports.tallies(OTHER) == []


@pytest.mark.usefixtures("task")
def test_devices_are_counted_and_described(ledger: Ledger, reports: Reports) -> None:
    online = DeviceStatus(device="a", state="online", agent="0.1", runtime="onnx", at=999.0)
    idle = DeviceStatus(device="idle", state="online", agent="0.1", runtime="onnx", at=998.0)
    gone = DeviceStatus(device="idle", state="offline", agent="0.1", runtime="onnx", at=999.0)
    refused = Rejection(key=UpdateKey(TASK, "c", 1), reason=Refusal.NORM, at=1.0)
    ledger.take_in(
        intake(
            new_update("a", 1, base=4),
            new_update("a", 2, base=3),
            rejections=(refused,),
            statuses=(online, idle, gone),
        )
    )
    found = {device.device: device for device in reports.devices(TASK)}
    assert list(found) == ["a", "c", "idle"]
    assert (found["a"].state, found["a"].accepted, found["a"].bytes) == ("online", 2, 200)
    assert (found["a"].last_version, found["a"].runtime) == (4, "onnx")
    assert (found["c"].state, found["c"].rejected, found["c"].last_version) == ("unknown", 1, None)
    assert (found["idle"].state, found["idle"].accepted) == ("offline", 0)
    counts = reports.device_counts(TASK, active_since=1000.0)
    assert (counts.known, counts.online, counts.active) == (3, 1, 1)
    assert reports.device_counts(TASK, active_since=1001.0).active == 0
    assert [device.device for device in reports.devices(TASK, after="a", limit=1)] == ["c"]


@pytest.mark.usefixtures("task")
def test_the_devices_seen_last_come_first(ledger: Ledger, reports: Reports) -> None:
    for at, device in [(3.0, "a"), (5.0, "b"), (4.0, "c")]:
        ledger.take_in(replace(intake(new_update(device, 1)), at=at))
    recent = reports.recent_devices(TASK, limit=2)
    assert [(device.device, device.last_seen) for device in recent] == [("b", 5.0), ("c", 4.0)]


@pytest.mark.usefixtures("task")
def test_quality_is_the_mean_of_reports_by_base_version(ledger: Ledger, reports: Reports) -> None:
    for number in range(1, 10):
        ledger.add_version(version(number), [], {})
    ledger.take_in(intake(new_update("a", 1, base=2, metrics={"hr_at_10": 1.0, "eval_loss": 0.5})))
    ledger.take_in(
        intake(
            new_update("b", 1, base=2, metrics={"hr_at_10": 0.0}),
            new_update("c", 1, base=3, metrics={"hr_at_10": 1.0}),
            new_update("d", 1, base=9, metrics={}),
        )
    )
    by_version = {v.version.version: v.quality for v in reports.versions(TASK)}
    assert by_version[2] == {"hr_at_10": 0.5, "eval_loss": 0.5}
    assert by_version[3] == {"hr_at_10": 1.0}
    assert by_version[9] == {}
    binned = reports.quality(TASK, bins=3)
    assert [row["version"] for row in binned] == [3]
    assert binned[0]["hr_at_10"] == pytest.approx(2 / 3)
    assert (binned[0]["reports"], binned[0]["ndcg_at_10"]) == (3, None)
    assert [row["version"] for row in reports.quality(TASK, bins=200)] == [2, 3]


@pytest.mark.usefixtures("task")
def test_updates_are_listed_newest_first(ledger: Ledger, reports: Reports) -> None:
    ids = ledger.take_in(
        intake(
            new_update("a", 1), new_update("b", 1, metrics={"hr_at_10": 1.0}), new_update("a", 2)
        )
    )
    ledger.add_version(version(1, updates=1), ids[:1], {0: 1})
    assert [update.id for update in reports.updates(TASK)] == ids[::-1]
    assert [u.sequence for u in reports.updates(TASK, device="a")] == [2, 1]
    assert [u.merged_in for u in reports.updates(TASK, device="a")] == [None, 1]
    assert reports.updates(TASK, device="b", limit=1)[0].metrics == {"hr_at_10": 1.0}


def test_the_newest_updates_are_found_without_sorting_the_ledger(
    database: Engine, reports: Reports
) -> None:
    if database.dialect.name != "sqlite":
        pytest.skip("the plan is read as SQLite words it")
    asked: list[tuple[str, Any]] = []

    def note(_c: object, _cursor: object, statement: str, parameters: Any, *_: object) -> None:
        asked.append((statement, parameters))

    listen(database, "before_cursor_execute", note)
    reports.updates(TASK)
    remove(database, "before_cursor_execute", note)
    ((statement, parameters),) = asked
    with database.connect() as connection:
        rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
        plan = " ".join(row.detail for row in rows)
    assert "updates_by_task" in plan
    assert "TEMP B-TREE" not in plan


def test_events_are_read_from_a_cursor_and_the_oldest_are_forgotten(
    ledger: Ledger, reports: Reports
) -> None:
    many = tuple(Event(at=1.0, kind="refused", detail=str(n)) for n in range(10_050))
    ledger.take_in(intake(events=many))
    ledger.add_event(Event(at=2.0, kind="started", detail="again", device="a"))
    ledger.tidy(1e6)
    first = reports.events(limit=1)[0]
    assert first.detail == "51"
    assert [event.kind for event in reports.events(after=reports.newest_event() - 1)] == ["started"]
    assert reports.events(after=reports.newest_event()) == []


@pytest.mark.usefixtures("task")
def test_tidying_forgets_old_seconds_only(ledger: Ledger, reports: Reports) -> None:
    ledger.take_in(intake(new_update("a", 1), new_update("a", 900)))
    ledger.tidy(1900.0)
    assert tally(reports, "second") == {1900: 1}
    assert tally(reports, "accepted") == {0: 2}


@pytest.mark.usefixtures("task")
def test_everything_survives_reopening(ledger: Ledger, database: Engine, database_url: str) -> None:
    ids = ledger.take_in(intake(new_update("a", 1), new_update("a", 2)))
    ledger.add_version(version(1, updates=1), ids[:1], {0: 1})
    database.dispose()
    again = open_database(database_url)
    assert Ledger(again).newest_version(TASK) == version(1, updates=1)
    assert [update.id for update in Ledger(again).members(TASK, None)] == ids[1:]
    again.dispose()


def test_sqlite_commits_are_on_the_disk_and_a_lock_is_a_passing_refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aggregator.ledger.database.BUSY_TIMEOUT_MS", 1)
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    engine = open_database(url)
    with engine.connect() as connection:
        assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"
        assert connection.execute(text("PRAGMA synchronous")).scalar() == 2
    other = open_database(url)
    with other.connect() as holder:
        holder.exec_driver_sql("BEGIN IMMEDIATE")
        with pytest.raises(LedgerUnavailableError, match="locked"):
            Ledger(engine).add_event(Event(at=1.0, kind="x", detail="y"))
    engine.dispose()
    other.dispose()
