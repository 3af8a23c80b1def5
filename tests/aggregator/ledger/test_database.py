"""Opening a database, and a PostgreSQL that goes away and comes back."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine, text

from aggregator.ledger import Event, Ledger, LedgerError, LedgerUnavailableError, Reports
from aggregator.ledger import open_database as open_url
from aggregator.ledger.database import transaction
from device_sims.postgresql import PASSWORD, PostgreSQL
from tests.aggregator.mosquitto import free_port

STARTED = Event(at=1.0, kind="started", detail="x")


@pytest.fixture
def on_postgresql(postgresql_url: str) -> Iterator[Engine]:
    engine = open_url(postgresql_url)
    yield engine
    engine.dispose()


@pytest.mark.parametrize("url", ["nonsense", "sqlite:////nowhere/at/all.db", "unknown://x"])
def test_an_unusable_url_is_refused(url: str) -> None:
    with pytest.raises(LedgerError):
        open_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://rivulet:sesame@127.0.0.1:{port}/x",
        "postgres://rivulet@127.0.0.1:{port}/x?password=sesame",
        "nosuch://rivulet:sesame@127.0.0.1/x",
        "postgresql+nosuch://rivulet:sesame@127.0.0.1/x?password=sesame",
        "postgresql://rivulet:sesame@[::1/x",
        "postgresql//rivulet:sesame@127.0.0.1",
        "postgresql://rivulet:sesame@127.0.0.1:port/x",
    ],
)
def test_a_password_is_never_shown(url: str) -> None:
    with pytest.raises(LedgerError) as refusal:
        open_url(url.format(port=free_port()))
    assert "sesame" not in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_server_that_is_not_there_is_named() -> None:
    port = free_port()
    with pytest.raises(LedgerError, match=rf"cannot open the database: .*{port}.*refused"):
        open_url(f"postgresql://rivulet@127.0.0.1:{port}/x")


def test_a_wrong_password_is_said(postgresql: PostgreSQL) -> None:
    with pytest.raises(LedgerError, match="password authentication failed") as refusal:
        open_url(postgresql.url(password="wrong"))
    assert "wrong" not in str(refusal.value)


def test_a_database_that_is_not_there_is_named(postgresql: PostgreSQL) -> None:
    with pytest.raises(LedgerError, match='database "nowhere" does not exist'):
        open_url(postgresql.url("nowhere"))


def test_the_driver_comes_with_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(**_: object) -> None:
        raise ModuleNotFoundError("No module named 'psycopg'", name="psycopg")

    monkeypatch.setattr(
        "sqlalchemy.dialects.postgresql.psycopg.PGDialect_psycopg.import_dbapi", missing
    )
    with pytest.raises(LedgerError, match=r"install rivulet\[postgres\]"):
        open_url("postgresql://rivulet@127.0.0.1/x")


def test_a_restarted_server_is_found_again(postgresql: PostgreSQL, on_postgresql: Engine) -> None:
    ledger = Ledger(on_postgresql)
    ledger.add_event(STARTED)
    postgresql.kill()
    try:
        with pytest.raises(LedgerUnavailableError):
            ledger.add_event(STARTED)
        with pytest.raises(LedgerUnavailableError):
            Reports(on_postgresql).events()
        with pytest.raises(LedgerUnavailableError):
            ledger.check()
    finally:
        postgresql.start()
    ledger.check()
    ledger.add_event(STARTED)
    assert len(Reports(on_postgresql).events()) == 2


def test_a_connection_that_breaks_in_a_transaction_wrote_nothing(on_postgresql: Engine) -> None:
    def break_off() -> None:
        with transaction(on_postgresql) as connection:
            connection.execute(text("INSERT INTO events (at, kind, detail) VALUES (1, 'x', 'y')"))
            end(connection.connection.driver_connection)
            connection.execute(text("SELECT 1"))

    with pytest.raises(LedgerUnavailableError):
        break_off()
    assert Reports(on_postgresql).events() == []


def test_a_standby_is_a_passing_refusal(postgresql_url: str) -> None:
    open_url(postgresql_url).dispose()
    standby = open_url(f"{postgresql_url}?options=-c%20default_transaction_read_only%3Don")
    with pytest.raises(LedgerUnavailableError, match="read-only"):
        Ledger(standby).check()
    standby.dispose()


@pytest.mark.parametrize("in_time", [True, False])
def test_a_commit_that_is_not_answered_is_looked_up(
    on_postgresql: Engine, monkeypatch: pytest.MonkeyPatch, *, in_time: bool
) -> None:
    broken = commits_break(on_postgresql, monkeypatch, in_time=in_time)
    ledger = Ledger(on_postgresql)
    if in_time:
        ledger.add_event(STARTED)
    else:
        with pytest.raises(LedgerUnavailableError):
            ledger.add_event(STARTED)
    assert broken == [True]
    assert len(Reports(on_postgresql).events()) == in_time


def test_a_commit_that_is_still_under_way_is_waited_for(
    on_postgresql: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A deferred trigger takes its time when the transaction commits, on a connection cut off.
    with on_postgresql.begin() as connection:
        connection.execute(
            text(
                "CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS "
                "$$ BEGIN PERFORM pg_sleep(1); RETURN NULL; END $$"
            )
        )
        connection.execute(
            text(
                "CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON events DEFERRABLE "
                "INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION dawdle()"
            )
        )

    commit = on_postgresql.dialect.do_commit

    def cut_off(connection: Any) -> None:
        monkeypatch.setattr(on_postgresql.dialect, "do_commit", commit)
        connection.driver_connection.pgconn.send_query(b"COMMIT")
        connection.driver_connection.pgconn.flush()
        raise psycopg.OperationalError("the connection is lost")

    monkeypatch.setattr(on_postgresql.dialect, "do_commit", cut_off)
    monkeypatch.setattr(on_postgresql.dialect, "is_disconnect", lambda *_: True)
    Ledger(on_postgresql).add_event(STARTED)
    assert len(Reports(on_postgresql).events()) == 1


def test_a_database_that_stays_away_during_a_commit_is_no_passing_refusal(
    on_postgresql: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aggregator.ledger.doubt.PATIENCE_S", 0.0)
    commits_break(on_postgresql, monkeypatch, in_time=True)
    with pytest.raises(LedgerError, match="start the service again") as refusal:
        Ledger(on_postgresql).add_event(STARTED)
    assert not isinstance(refusal.value, LedgerUnavailableError)


def test_reading_leaves_no_mark(on_postgresql: Engine) -> None:
    ledger = Ledger(on_postgresql)
    assert ledger.tasks() == []
    with on_postgresql.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM commits")) == 0
    ledger.check()
    ledger.check()
    with on_postgresql.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM commits")) == 1


def test_a_device_can_write_no_text_that_the_database_refuses(database: Engine) -> None:
    Ledger(database).add_event(Event(at=1.0, kind="unreadable", detail="a\0b"))
    (event,) = Reports(database).events()
    assert event.detail == "a\N{REPLACEMENT CHARACTER}b"


def commits_break(engine: Engine, patch: pytest.MonkeyPatch, *, in_time: bool) -> list[bool]:
    """Have the next commit's connection break, after or before the server has committed."""
    broken: list[bool] = []
    commit = engine.dialect.do_commit

    def break_off(connection: Any) -> None:
        if broken:
            commit(connection)
            return
        broken.append(True)
        raw = connection.driver_connection
        if in_time:
            commit(connection)
        end(raw)
        raw.execute("SELECT 1")

    patch.setattr(engine.dialect, "do_commit", break_off)
    return broken


def end(raw: Any) -> None:
    """End a connection from the server's side."""
    with psycopg.connect(
        host=raw.info.host,
        port=raw.info.port,
        user=raw.info.user,
        password=PASSWORD,
        dbname=raw.info.dbname,
        autocommit=True,
    ) as other:
        other.execute("SELECT pg_terminate_backend(%s, 5000)", [raw.info.backend_pid])
