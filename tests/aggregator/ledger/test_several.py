"""Several processes on one ledger: one decision for an update, one merge at a time, commands."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from sqlalchemy import Engine, text

from aggregator.ledger import (
    Answer,
    DecidedMeanwhileError,
    Errands,
    Event,
    Intake,
    Ledger,
    Rejection,
    SupersededError,
    TaskRecord,
    UpdateKey,
    bring_up,
    connect,
    has_current_tables,
    lock_of,
    open_database,
)
from aggregator.ledger.turns import take_turns
from tests.aggregator.device import eventually
from tests.aggregator.ledger.conftest import OTHER, TASK, intake, new_update, version
from wire.messages import Outcome, Refusal

EVENT = Event(at=1.0, kind="task-created", detail="x", task=TASK)


def record(task: str) -> TaskRecord:
    return TaskRecord(
        task=task,
        manifest=b"{}",
        created_at=1.0,
        paused=False,
        training={"interval_s": 2.0},
        codec={},
        rule={"buffer_size": 2},
    )


@pytest.fixture
def shared(postgresql_url: str) -> Iterator[Engine]:
    database = open_database(postgresql_url)
    Ledger(database).create_task(record(TASK), version(0), EVENT)
    yield database
    database.dispose()


def test_an_older_term_can_write_nothing_but_updates(ledger: Ledger, database: Engine) -> None:
    ledger.take_over()
    ledger.create_task(record(TASK), version(0), EVENT)
    later = Ledger(database)
    later.take_over()
    ids = ledger.take_in(intake(new_update("a", 1)))
    writes: list[Callable[[], object]] = [
        lambda: ledger.add_version(version(1), ids, {}),
        lambda: ledger.steer(record(TASK), EVENT),
        lambda: ledger.add_snapshot(TASK, 0, "0" * 64, 1),
        lambda: ledger.forget_publications(TASK, [0]),
        lambda: ledger.create_task(record(OTHER), replace(version(0), task=OTHER), EVENT),
        lambda: ledger.tidy(1.0),
    ]
    for write in writes:
        with pytest.raises(SupersededError):
            write()
    later.add_version(version(1, updates=1), ids, {})
    assert [update.id for update in later.members(TASK, 1)] == ids


@pytest.mark.usefixtures("database")
def test_waiting_updates_are_found_in_whatever_order_they_turn_up(ledger: Ledger) -> None:
    ledger.create_task(record(TASK), version(0), EVENT)
    ids = ledger.take_in(intake(*(new_update("a", n) for n in range(1, 6))))
    assert [u.id for u in ledger.waiting(TASK, known=(), limit=3)] == ids[:3]
    # The second was not to be seen when the others were found.
    known = {ids[0], ids[2], ids[3]}
    assert [u.id for u in ledger.waiting(TASK, known=known, limit=4)] == [ids[1]]
    ledger.add_version(version(1, updates=2), [ids[0], ids[2]], {0: 2})
    assert [u.id for u in ledger.waiting(TASK, known=(), limit=9)] == [ids[1], *ids[3:]]


def test_heads_are_what_decides_on_updates(ledger: Ledger) -> None:
    ledger.create_task(record(TASK), version(0), EVENT)
    batch = replace(intake(new_update("a", 1)), norms={TASK: {3: 1, 4: 2}})
    ids = ledger.take_in(batch)
    ledger.add_version(version(1, updates=1), ids, {})
    head = ledger.heads()[TASK]
    assert (head.version, head.training, head.norms) == (1, {"interval_s": 2.0}, {3: 1, 4: 2})


def attempt(database: Engine, batch: Intake, together: threading.Barrier) -> str:
    together.wait()
    try:
        Ledger(database).take_in(batch)
    except DecidedMeanwhileError:
        return "judge again"
    return "written"


def test_two_that_take_in_at_once_come_to_one_decision(shared: Engine) -> None:
    """One finds an update good and the other does not; the second to come must judge again."""
    with ThreadPoolExecutor(2) as pool:
        for number in range(20):
            good = new_update(f"device-{number}", 1)
            bad = Rejection(key=good.key, reason=Refusal.TOO_STALE, at=1.0)
            together = threading.Barrier(2)
            batches = (intake(good), intake(rejections=(bad,)))
            tries = [pool.submit(attempt, shared, batch, together) for batch in batches]
            assert sorted(done.result() for done in tries) == ["judge again", "written"]
            decision = Ledger(shared).decisions([good.key])[good.key]
            accepted = tries[0].result() == "written"
            assert decision.outcome is (Outcome.ACCEPTED if accepted else Outcome.REJECTED)


def test_a_refusal_for_an_unknown_task_waits_for_the_task(shared: Engine) -> None:
    stranger = Rejection(key=UpdateKey(OTHER, "a", 1), reason=Refusal.UNKNOWN_TASK, at=1.0)
    ledger = Ledger(shared)
    ledger.create_task(record(OTHER), replace(version(0), task=OTHER), EVENT)
    with pytest.raises(DecidedMeanwhileError):
        ledger.take_in(intake(rejections=(stranger,)))


def test_norms_are_halved_by_one_process_only(shared: Engine) -> None:
    ledger = Ledger(shared)
    ledger.take_in(replace(intake(new_update("a", 1)), norms={TASK: {0: 1999}}))
    halved = {TASK: {0: -999}}
    ledger.take_in(replace(intake(new_update("a", 2)), norms=halved))
    with pytest.raises(DecidedMeanwhileError):
        ledger.take_in(replace(intake(new_update("b", 1)), norms=halved))
    assert ledger.norms(TASK) == {0: 1000}


def test_a_device_s_ids_become_visible_in_their_order(shared: Engine, postgresql_url: str) -> None:
    """Otherwise a rule that counts a device's earlier updates would not replay."""
    ledger, done = Ledger(shared), threading.Event()
    other = connect(postgresql_url)

    def later() -> None:
        Ledger(other).take_in(intake(new_update("a", 2)))
        done.set()

    with shared.connect() as first, first.begin():
        take_turns(first, [f"{TASK}/a"])
        thread = threading.Thread(target=later)
        thread.start()
        waits = text("SELECT count(*) FROM pg_locks WHERE locktype='advisory' AND NOT granted")
        eventually(lambda: first.scalar(waits) == 1)
        assert not done.is_set()
        assert ledger.members(TASK, None) == []
    thread.join()
    assert len(ledger.members(TASK, None)) == 1
    other.dispose()


def test_many_share_a_lock_while_nobody_has_it_alone(shared: Engine) -> None:
    one, two = (lock_of(shared, "x", shared=True) for _ in range(2))
    alone = lock_of(shared, "x")
    assert one.acquire()
    assert two.acquire()
    assert not alone.acquire()
    one.release()
    two.release()
    assert alone.acquire()
    assert not one.acquire()
    alone.release()


def test_commands_are_left_answered_withdrawn_and_forgotten(database: Engine) -> None:
    errands = Errands(database)
    first, second = (errands.leave("steer", b"\0x", at=1.0) for _ in range(2))
    assert [(e.id, e.kind, e.arguments) for e in errands.waiting()] == [
        (first, "steer", b"\0x"),
        (second, "steer", b"\0x"),
    ]
    errands.close(first, Answer(None, "null"), at=2.0)
    errands.withdraw(first)
    errands.withdraw(second)
    assert errands.answer(first) == Answer(None, "null")
    assert errands.answer(second) is None
    assert errands.waiting() == []
    errands.forget(before=1.5)
    assert errands.answer(first) is None


def test_only_an_empty_database_gets_tables_from_who_may_not_change_them(
    database_url: str,
) -> None:
    database = connect(database_url)
    assert has_current_tables(database)
    with database.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0006'"))
        connection.execute(text("DROP TABLE terms"))
        connection.execute(text("DROP TABLE commands"))
    assert not has_current_tables(database)
    bring_up(database)
    assert has_current_tables(database)
    database.dispose()
