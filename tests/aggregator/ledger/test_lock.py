"""The contract of a lock, for every database."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from aggregator.ledger import (
    FileLock,
    LedgerError,
    LedgerUnavailableError,
    Lock,
    Watch,
    connect,
    lock_of,
)
from device_sims.postgresql import PostgreSQL
from tests.aggregator.device import eventually


@pytest.fixture
def engines(database_url: str) -> Iterator[tuple[Engine, Engine]]:
    """What two processes would have."""
    first, second = connect(database_url), connect(database_url)
    yield first, second
    first.dispose()
    second.dispose()


@pytest.fixture
def locks(engines: tuple[Engine, Engine]) -> Iterator[tuple[Lock, Lock]]:
    first, second = (lock_of(engine, "writer") for engine in engines)
    yield first, second
    first.release()
    second.release()


def test_one_has_it_at_a_time(locks: tuple[Lock, Lock]) -> None:
    first, second = locks
    assert not first.held()
    assert first.acquire()
    assert first.acquire()
    assert first.held()
    assert not second.acquire()
    assert not second.held()
    first.release()
    first.release()
    assert not first.held()
    assert second.acquire()
    assert not first.acquire()


def test_locks_of_other_names_do_not_know_of_each_other(
    locks: tuple[Lock, Lock], engines: tuple[Engine, Engine]
) -> None:
    assert locks[0].acquire()
    other = lock_of(engines[1], "other")
    assert other.acquire()
    other.release()


def test_it_needs_no_connection_of_the_pool(
    locks: tuple[Lock, Lock], engines: tuple[Engine, Engine]
) -> None:
    assert locks[0].acquire()
    engines[0].dispose()
    assert locks[0].held()


def test_a_restarted_server_has_forgotten_it(postgresql: PostgreSQL, postgresql_url: str) -> None:
    engine = connect(postgresql_url)
    mine = lock_of(engine, "writer")
    assert mine.acquire()
    postgresql.kill()
    try:
        assert not mine.held()
        with pytest.raises(LedgerUnavailableError):
            mine.acquire()
    finally:
        postgresql.start()
    assert not mine.held()
    assert mine.acquire()
    mine.release()
    engine.dispose()


def test_a_watch_gets_it_back_or_says_that_another_has_it(postgresql_url: str) -> None:
    engine = connect(postgresql_url)
    mine, another = lock_of(engine, "writer"), lock_of(engine, "writer")
    lost = threading.Event()
    assert mine.acquire()
    watch = Watch(mine, on_lost=lost.set, interval_s=0.02)
    watch.start()
    end_locks(engine)
    eventually(mine.held)
    assert not lost.is_set()
    watch.stop()
    end_locks(engine)
    eventually(another.acquire)
    watch = Watch(mine, on_lost=lost.set, interval_s=0.02)
    watch.start()
    assert lost.wait(5.0)
    watch.stop()
    another.release()
    engine.dispose()


def end_locks(engine: Engine) -> None:
    """End every connection that holds an advisory lock in this database."""
    ending = (
        "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND "
        "database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    with engine.connect() as connection:
        connection.execute(text(ending))


def test_a_file_that_was_replaced_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    first, second = FileLock(path), FileLock(path)
    assert first.acquire()
    path.unlink()
    assert not first.held()
    assert second.acquire()
    assert not first.acquire()
    second.release()


def test_what_cannot_be_locked_is_said(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="cannot write to"):
        FileLock(tmp_path / "nowhere" / "lock").acquire()
    with pytest.raises(LedgerError, match="in memory"):
        lock_of(connect("sqlite://"), "writer")
