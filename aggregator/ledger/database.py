"""Opening the database: SQLite in WAL mode, or what another SQLAlchemy URL names."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, Table, create_engine, event, insert, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, OperationalError, SQLAlchemyError

from aggregator.ledger import schema

__all__ = [
    "LedgerError",
    "LedgerUnavailableError",
    "open_database",
    "transaction",
    "upsert",
]

BUSY_TIMEOUT_MS = 10_000
READERS = 48


class LedgerError(Exception):
    """The ledger cannot be used as it is; the message says why and what to do."""


class LedgerUnavailableError(LedgerError):
    """The database refuses for now (full, locked, gone). Nothing was written; try again later."""


def open_database(url: str) -> Engine:
    """Open a database, and make its tables where they are missing.

    On SQLite every commit is on the disk before it returns (``synchronous=FULL``).

    Raises:
        LedgerError: the URL is not one, the database cannot be opened, or newer software wrote it.
    """
    try:
        engine = create_engine(url, **_pool(url))
        if engine.dialect.name == "sqlite":
            event.listen(engine, "connect", _prepare_sqlite)
        with engine.begin() as connection:
            schema.metadata.create_all(connection)
            _check_version(connection)
    except (ArgumentError, ImportError) as error:
        raise LedgerError(f"database URL {url!r} is not usable: {error}") from None
    except SQLAlchemyError as error:
        raise LedgerError(f"cannot open the database: {_cause(error)}") from None
    return engine


@contextmanager
def transaction(engine: Engine) -> Iterator[Connection]:
    """One transaction; all or nothing.

    Raises:
        LedgerUnavailableError: the database refused, and nothing was written.
    """
    try:
        with engine.begin() as connection:
            yield connection
    except OperationalError as error:
        raise LedgerUnavailableError(f"the database refuses: {_cause(error)}") from error


def upsert(connection: Connection, table: Table) -> sqlite.Insert | postgresql.Insert:
    """An insert that can say what to do on a conflict, for the connection's database."""
    return (
        postgresql.insert(table)
        if connection.dialect.name == "postgresql"
        else sqlite.insert(table)
    )


def _pool(url: str) -> dict[str, Any]:
    # The API reads from a pool of threads; one that waits for a connection would look like a hang.
    return {} if ":memory:" in url else {"pool_size": 8, "max_overflow": READERS - 8}


def _prepare_sqlite(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
    cursor.close()


def _check_version(connection: Connection) -> None:
    found = connection.scalar(select(schema.schema_version.c.version))
    if found is None:
        connection.execute(insert(schema.schema_version), {"version": schema.SCHEMA_VERSION})
    elif found != schema.SCHEMA_VERSION:
        raise LedgerError(
            f"the database has schema {found} and this software knows {schema.SCHEMA_VERSION}; "
            "use the version of rivulet that wrote it, or a newer one"
        )


def _cause(error: SQLAlchemyError) -> str:
    return str(getattr(error, "orig", None) or error)
