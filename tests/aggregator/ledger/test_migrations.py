"""Migrations: from nothing and from every older form to what the schema says, or not at all."""

import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, insert, inspect, text
from sqlalchemy.exc import DBAPIError

from aggregator.ledger import (
    Ledger,
    LedgerError,
    PublicationRecord,
    Reports,
    bring_up,
    connect,
    open_database,
    schema,
)
from aggregator.ledger.migrations import runner
from aggregator.ledger.migrations.runner import head, revision_of, software
from aggregator.ledger.migrations.steps import configuration

TASK = "a" * 32


def make_old(url: str) -> Engine:
    """A database as the software before the migrations left it, with a row in each table."""
    engine = connect(url)
    statements = (
        Path(__file__).parent / f"before_migrations.{engine.dialect.name}.sql"
    ).read_text()
    with engine.begin() as connection:
        for statement in statements.split(";\n"):
            if statement.strip():
                connection.exec_driver_sql(statement)
        for statement in OLD_ROWS:
            connection.execute(text(statement), {"payload": b"delta"})
    return engine


OLD_ROWS = (
    f"INSERT INTO tasks VALUES ('{TASK}', '{{}}', 1.5, false, '{{\"epochs\": 1}}', '{{}}', '{{}}')",
    f"INSERT INTO versions VALUES ('{TASK}', 0, '{'0' * 64}', 10, '{{\"buffer_size\": 2}}', "
    "2.0, 0, 0)",
    "INSERT INTO updates (task, device, sequence, base_version, examples, payload, size_bytes, "
    f"metrics, received_at) VALUES ('{TASK}', 'hub', 7, 0, 3, :payload, 100, '{{}}', 3.5)",
    f"INSERT INTO rejections VALUES ('{TASK}', 'hub', 6, 1, 1.0)",
    f"INSERT INTO participants VALUES ('{TASK}', 'hub', 7, 0, 3.5, 1, 1, 0, 100)",
    "INSERT INTO devices VALUES ('hub', 'online', '0.1', 'onnx', 1.0)",
    f"INSERT INTO tallies VALUES ('{TASK}', 'accepted', 0, 1)",
    f"INSERT INTO quality VALUES ('{TASK}', 0, 'hr_at_10', 2, 1.0)",
    "INSERT INTO events (at, kind, detail) VALUES (1.0, 'started', 'once')",
)


def differences(engine: Engine) -> list[Any]:
    """What Alembic finds between the tables that are there and the schema."""
    with engine.connect() as connection:
        options = {"compare_type": True, "compare_server_default": True}
        context = MigrationContext.configure(connection, opts=options)
        return list(compare_metadata(context, schema.metadata))


def test_the_migrations_make_what_the_schema_says(database: Engine) -> None:
    assert differences(database) == []
    with database.connect() as connection:
        assert revision_of(connection) == head()
        assert connection.scalar(text("SELECT software FROM schema_version")) == software()


def test_they_are_one_line() -> None:
    script = ScriptDirectory.from_config(configuration())
    revisions = [revision.revision for revision in script.walk_revisions()]
    assert revisions == [f"{number:04d}" for number in range(len(revisions), 0, -1)]
    assert runner._known() == frozenset(revisions)
    assert head() == revisions[0]


def test_a_start_on_current_tables_does_without_alembic(tmp_path: Path) -> None:
    """Loading it takes a good part of the time from a kill to the next answer."""
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    open_database(url).dispose()
    program = (
        "import sys; import aggregator.command; from aggregator.ledger import open_database; "
        f"open_database({url!r}).dispose(); sys.exit('alembic' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_a_database_from_before_the_migrations_is_adopted(database_url: str) -> None:
    old = make_old(database_url)
    bring_up(old)
    assert differences(old) == []
    ledger, reports = Ledger(old), Reports(old)
    (task,) = ledger.tasks()
    assert (task.task, task.created_at, task.training) == (TASK, 1.5, {"epochs": 1})
    assert ledger.newest_version(TASK).rule == {"buffer_size": 2}
    (update,) = ledger.members(TASK, None)
    assert (update.payload, update.received_at) == (b"delta", 3.5)
    (device,) = reports.devices(TASK)
    assert (device.device, device.accepted, device.state) == ("hub", 1, "online")
    assert reports.versions(TASK)[0].quality == {"hr_at_10": 0.5}
    assert [event.detail for event in reports.events()] == ["once"]
    old.dispose()


def test_publications_from_before_the_migrations_are_kept(database_url: str) -> None:
    old = make_old(database_url)
    schema.publications.create(old)
    record = PublicationRecord(
        task=TASK, version=0, sha256="1" * 64, size_bytes=9, exponents={"item": -8}, created_at=1.0
    )
    with old.begin() as connection:
        connection.execute(insert(schema.publications), asdict(record))
    bring_up(old)
    assert differences(old) == []
    assert Ledger(old).publications(TASK) == [record]
    old.dispose()


def test_software_from_before_the_migrations_refuses_what_was_adopted(database_url: str) -> None:
    old = make_old(database_url)
    bring_up(old)
    with old.connect() as connection:
        assert connection.scalar(text("SELECT version FROM schema_version")) != 1
    old.dispose()


def test_opening_again_changes_nothing(database: Engine, database_url: str) -> None:
    with database.begin() as connection:
        connection.execute(text("UPDATE schema_version SET software = 'rivulet 0.0.1'"))
    again = open_database(database_url)
    with again.connect() as connection:
        assert connection.scalar(text("SELECT software FROM schema_version")) == "rivulet 0.0.1"
    again.dispose()


def test_an_interrupted_migration_leaves_the_old_form(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = make_old(database_url)
    with monkeypatch.context() as patch:
        # What is written last fails: everything before it was done by then.
        patch.setattr("aggregator.ledger.migrations.runner.software", lambda: object())
        with pytest.raises(LedgerError):
            bring_up(old)
    tables = inspect(old).get_table_names()
    assert "commits" not in tables
    assert "alembic_version" not in tables
    assert [column["name"] for column in inspect(old).get_columns("schema_version")] == ["version"]
    with old.connect() as connection:
        assert connection.scalar(text("SELECT payload FROM updates")) is not None
    bring_up(old)
    assert differences(old) == []
    old.dispose()


def test_an_interrupted_first_start_leaves_nothing(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = connect(database_url)
    with monkeypatch.context() as patch:
        patch.setattr("aggregator.ledger.migrations.runner.software", lambda: object())
        with pytest.raises(LedgerError):
            bring_up(engine)
    assert inspect(engine).get_table_names() == []
    engine.dispose()


@pytest.mark.usefixtures("database")
def test_a_database_of_newer_software_is_refused_with_the_way_out(database_url: str) -> None:
    newer = create_engine(connect(database_url).url)
    with newer.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        connection.execute(text("UPDATE schema_version SET software = 'rivulet 9.0'"))
    with pytest.raises(LedgerError, match=r"revision 9999, written by rivulet 9\.0.*backup"):
        open_database(database_url)
    newer.dispose()


def test_an_unknown_schema_from_before_the_migrations_is_refused(database_url: str) -> None:
    old = make_old(database_url)
    with old.begin() as connection:
        connection.execute(text("UPDATE schema_version SET version = 99"))
    with pytest.raises(LedgerError, match="schema 99"):
        bring_up(old)
    with old.begin() as connection:
        connection.execute(text("DELETE FROM schema_version"))
    with pytest.raises(LedgerError, match="holds nothing; delete it"):
        bring_up(old)
    old.dispose()


def test_a_table_is_copied_without_its_children_on_sqlite(tmp_path: Path) -> None:
    engine = make_old(f"sqlite:///{tmp_path / 'ledger.db'}")
    bring_up(engine)
    with engine.connect() as connection:
        assert connection.scalar(text("PRAGMA foreign_keys")) == 1
    with pytest.raises(DBAPIError), engine.begin() as connection:
        connection.execute(text("DELETE FROM tasks"))
    engine.dispose()


def test_tables_that_another_process_makes_between_two_questions(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Roles that are started together look at an empty database while one of them fills it."""
    mine, other = connect(database_url), connect(database_url)
    look = runner._number_before_migrations

    def late(connection: Connection) -> int | None:
        connection.rollback()
        with monkeypatch.context() as patch:
            patch.setattr(runner, "_number_before_migrations", look)
            bring_up(other)
        return look(connection)

    monkeypatch.setattr(runner, "_number_before_migrations", late)
    with mine.connect() as connection:
        assert revision_of(connection) == head()
    for engine in (mine, other):
        engine.dispose()
