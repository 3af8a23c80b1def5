"""Carrying the migrations out, in one transaction, while nobody else does."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from sqlalchemy import Connection, Engine, column, func, inspect, select, table, update
from sqlalchemy.exc import SQLAlchemyError

from aggregator.ledger import schema

__all__ = ["MigrationError", "head", "revision_of", "software", "upgrade"]

BEFORE_MIGRATIONS = 1
UNSTAMPED = "0001"
_STAMP = table("alembic_version", column("version_num"))
# Any number will do, if all versions of this software take the same.
_POSTGRESQL_LOCK = 0x726976756C6574


class MigrationError(Exception):
    """The database has a form that this software cannot go on from; nothing was changed."""


def upgrade(engine: Engine) -> None:
    """Bring a database to the form that this software knows, whatever older form it has.

    An empty one gets all tables. One transaction holds every step, so it ends in the new form or
    stays in the old one; several processes may do it at the same time.

    Raises:
        MigrationError: newer software wrote it; the message says which, and what to do.
        sqlalchemy.exc.SQLAlchemyError: the database refuses.
    """
    with engine.connect() as connection:
        found = revision_of(connection)
    if found == head():
        return
    with engine.connect() as connection, _alone(connection):
        _step_up(connection)


def head() -> str:
    """The revision that this software knows."""
    return max(_known())


def revision_of(connection: Connection) -> str | None:
    """The revision that a database is at; None for an empty one.

    Raises:
        MigrationError: it is none of those that this software knows.
    """
    found = _stamp(connection)
    if found is None:
        before = _number_before_migrations(connection)
        # Between the two questions another process may have brought the database up.
        found = _stamp(connection)
        if found is None:
            return _before_migrations(before)
    if found not in _known():
        raise _newer(connection, found)
    return found


def software() -> str:
    """What is written into a database as its writer."""
    try:
        return f"rivulet {version('rivulet')}"
    except PackageNotFoundError:
        return "rivulet from a checkout"


def _step_up(connection: Connection) -> None:
    found = revision_of(connection)  # Again: another process may have been first.
    from aggregator.ledger.migrations.steps import stamp, step_up

    if found == UNSTAMPED:
        stamp(connection, UNSTAMPED)
    step_up(connection)
    connection.execute(update(schema.schema_version).values(software=software()))


@cache
def _known() -> frozenset[str]:
    """Every revision that this software can go on from; a file's name begins with its own."""
    files = (Path(__file__).parent / "versions").glob("v*_*.py")
    return frozenset(file.name[1:].partition("_")[0] for file in files)


def _stamp(connection: Connection) -> str | None:
    """The revision that Alembic has written into a database."""
    if not inspect(connection).has_table(_STAMP.name):
        return None
    return connection.scalar(select(_STAMP.c.version_num))


def _number_before_migrations(connection: Connection) -> int | None:
    """What the schema's number was kept as, 0 for none in its table; None without the table."""
    numbers = schema.schema_version
    if not inspect(connection).has_table(numbers.name):
        return None
    return connection.scalar(select(numbers.c.version)) or 0


def _before_migrations(number: int | None) -> str | None:
    if number is None:
        return None
    if number == BEFORE_MIGRATIONS:
        return UNSTAMPED
    if number == 0:
        # Its process died before it had made all tables.
        raise MigrationError("the database was never finished and holds nothing; delete it")
    raise MigrationError(f"the database has schema {number}, which no version of rivulet writes")


def _newer(connection: Connection, revision: str) -> MigrationError:
    writer = connection.scalar(select(schema.schema_version.c.software))
    return MigrationError(
        f"the database is at revision {revision}, written by {writer}, and this is {software()}, "
        f"which knows revisions up to {head()}; run the software that wrote it or a newer one, or "
        "restore a backup from before it was upgraded"
    )


@contextmanager
def _alone(connection: Connection) -> Iterator[None]:
    """One transaction around everything, data definitions too; the next process waits for it."""
    if connection.dialect.name == "sqlite":
        with _alone_on_sqlite(connection):
            yield
        return
    with connection.begin():
        connection.execute(select(func.pg_advisory_xact_lock(_POSTGRESQL_LOCK)))
        yield


@contextmanager
def _alone_on_sqlite(connection: Connection) -> Iterator[None]:
    # Python's driver would commit before a CREATE TABLE. And a table is changed by copying it, for
    # which the rows that point at it must be let alone; the switch works outside transactions only.
    connection.execution_options(isolation_level="AUTOCOMMIT")
    connection.exec_driver_sql("PRAGMA foreign_keys=OFF")
    try:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        try:
            yield
            broken = connection.exec_driver_sql("PRAGMA foreign_key_check").first()
            if broken is not None:
                raise RuntimeError(f"a migration leaves rows that point nowhere: {broken}")
        except BaseException:
            with suppress(SQLAlchemyError):  # A full disk has rolled it back already.
                connection.exec_driver_sql("ROLLBACK")
            raise
        connection.exec_driver_sql("COMMIT")
    finally:
        connection.exec_driver_sql("PRAGMA foreign_keys=ON")
