"""Opening the database: SQLite in WAL mode, or PostgreSQL where the URL says so."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, Table, create_engine, event, make_url
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    InterfaceError,
    NoSuchModuleError,
    OperationalError,
    SQLAlchemyError,
)
from sqlalchemy.exc import TimeoutError as NoConnectionError

from aggregator.full import storage_full
from aggregator.ledger.doubt import UnknownOutcomeError, committing
from aggregator.ledger.migrations import MigrationError, head, revision_of, upgrade

__all__ = [
    "LedgerError",
    "LedgerUnavailableError",
    "bring_up",
    "cause",
    "connect",
    "has_current_tables",
    "is_current",
    "open_database",
    "reading",
    "transaction",
    "upsert",
]

BUSY_TIMEOUT_MS = 10_000
SQLITE_READERS = 48
POSTGRESQL_CONNECTIONS = 20
# Of libpq: a server that is gone without a word is noticed after some 15 seconds.
POSTGRESQL_PATIENCE = {
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 5,
    "keepalives_count": 2,
    "tcp_user_timeout": 15_000,
}
READ_ONLY = "25006"
"""SQLSTATE of a PostgreSQL that is a standby for now."""
DISK_FULL = "53100"
"""SQLSTATE of a PostgreSQL that has no space."""


class LedgerError(Exception):
    """The ledger cannot be used as it is; the message says why and what to do."""


class LedgerUnavailableError(LedgerError):
    """The database refuses for now (full, locked, gone). Nothing was written; try again later."""


def open_database(url: str) -> Engine:
    """Open a database and bring its tables to the form that this software knows.

    Args:
        url: ``sqlite:///FILE``, or ``postgresql://USER@HOST/NAME`` with anything that libpq takes
            as a query. What the URL leaves out, PostgreSQL's own variables (``PGPASSWORD``,
            ``PGPASSFILE``, ``PGSSLMODE`` and so on) say.

    Raises:
        LedgerError: the URL is not one, the database cannot be opened, or newer software wrote it.
    """
    engine = connect(url)
    try:
        bring_up(engine)
    except BaseException:
        engine.dispose()
        raise
    return engine


def connect(url: str) -> Engine:
    """Prepare to use a database, without asking or changing it yet; see ``open_database``.

    Raises:
        LedgerError: the URL is not one, or a package is missing for it.
    """
    parsed = _parse(url)
    try:
        engine = create_engine(parsed, **_options(parsed))
    except NoSuchModuleError:
        raise LedgerError(
            f"database URL {_shown(parsed)} names no database that is known here; "
            "expected sqlite:///FILE or postgresql://USER@HOST/NAME"
        ) from None
    except ModuleNotFoundError as error:
        raise LedgerError(
            f"PostgreSQL needs the package {error.name}; install rivulet[postgres]"
        ) from None
    except (ArgumentError, ImportError, TypeError) as error:
        raise LedgerError(f"database URL {_shown(parsed)} is not usable: {error}") from None
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
        # Many rows in one statement: between two of them another thread may take the interpreter.
        engine.dialect.use_insertmanyvalues_wo_returning = True
    return engine


def is_current(engine: Engine) -> bool:
    """Whether the tables are those that this software knows; changes nothing.

    Raises:
        LedgerError: there is no database, it cannot be reached, or newer software wrote it.
    """
    file = engine.url.database
    if engine.dialect.name == "sqlite" and (file is None or not Path(file).is_file()):
        raise LedgerError(f"there is no database at {file}")
    try:
        with engine.connect() as connection:
            return revision_of(connection) == head()
    except MigrationError as error:
        raise LedgerError(str(error)) from None
    except SQLAlchemyError as error:
        raise LedgerError(f"cannot open the database: {cause(error)}") from None


def bring_up(engine: Engine) -> None:
    """Make the tables, or change those of an older version; nothing when they are right.

    Raises:
        LedgerError: the database cannot be reached, or newer software wrote it.
    """
    try:
        upgrade(engine)
    except MigrationError as error:
        raise LedgerError(str(error)) from None
    except SQLAlchemyError as error:
        raise _cannot_open(error) from None


def has_current_tables(engine: Engine) -> bool:
    """Whether the tables have the form that this software knows; an empty database gets them.

    For a process that may run beside others that write: only who holds the lock of the writer may
    change tables.

    Raises:
        LedgerError: the database cannot be reached, or newer software wrote it.
    """
    try:
        with engine.connect() as connection:
            found = revision_of(connection)
    except MigrationError as error:
        raise LedgerError(str(error)) from None
    except SQLAlchemyError as error:
        raise _cannot_open(error) from None
    if found is None:
        bring_up(engine)
    return found in (None, head())


@contextmanager
def transaction(engine: Engine, *, lasting: bool = True) -> Iterator[Connection]:
    """One transaction; all or nothing.

    Args:
        engine: the database.
        lasting: have it on the disk before this returns. Otherwise SQLite leaves that to the next
            one that lasts, which takes it along: a machine that loses power before may forget it,
            a process that dies does not. PostgreSQL may go without this process, so there every
            transaction lasts.

    Raises:
        LedgerUnavailableError: the database refused, and nothing was written.
        LedgerError: the connection broke while it committed, and the database did not come back to
            say whether it had. Only a new start from the ledger is safe.
    """
    relaxed = not lasting and engine.dialect.name == "sqlite"
    try:
        with engine.connect() as connection:
            if relaxed:
                _synchronise(connection, "NORMAL")
            try:
                with committing(connection):
                    yield connection
            finally:
                if relaxed:
                    _synchronise(connection, "FULL")
    except UnknownOutcomeError as error:
        raise LedgerError(str(error)) from error
    except (DBAPIError, NoConnectionError) as error:
        if not _passes(error):
            raise
        raise LedgerUnavailableError(_refusal(error)) from error


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """Like ``transaction``, for what changes nothing.

    Raises:
        LedgerUnavailableError: the database refused.
    """
    try:
        with engine.connect() as connection:
            yield connection
    except (DBAPIError, NoConnectionError) as error:
        if not _passes(error):
            raise
        raise LedgerUnavailableError(f"the database refuses: {cause(error)}") from error


def upsert(dialect: str, table: Table) -> sqlite.Insert | postgresql.Insert:
    """An insert that can say what to do on a conflict, for a kind of database."""
    return postgresql.insert(table) if dialect == "postgresql" else sqlite.insert(table)


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        # It is not shown: what is wrong with it may be a password.
        raise LedgerError(
            "the database's URL is not one; expected sqlite:///FILE or postgresql://USER@HOST/NAME "
            "(a password's special characters are written as %40 for @ and so on)"
        ) from None
    if parsed.drivername in ("postgres", "postgresql"):
        return parsed.set(drivername="postgresql+psycopg")
    return parsed


def _options(url: URL) -> dict[str, Any]:
    if url.get_backend_name() == "postgresql":
        patience = {k: v for k, v in POSTGRESQL_PATIENCE.items() if k not in url.query}
        return {
            "connect_args": {"application_name": "rivulet-aggregator", **patience},
            "pool_size": 5,
            "max_overflow": POSTGRESQL_CONNECTIONS - 5,
            "pool_timeout": 10,
            # A server that was restarted meanwhile is noticed before a transaction begins.
            "pool_pre_ping": True,
        }
    # The API reads from a pool of threads; one that waits for a connection would look like a hang.
    in_memory = url.database in (None, "", ":memory:")
    return {} if in_memory else {"pool_size": 8, "max_overflow": SQLITE_READERS - 8}


def _prepare_sqlite(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
    cursor.close()


def _cannot_open(error: SQLAlchemyError) -> LedgerError:
    passes = isinstance(error, DBAPIError | NoConnectionError) and _passes(error)
    kind = LedgerUnavailableError if passes else LedgerError
    return kind(f"cannot open the database: {cause(error)}")


def _synchronise(connection: Connection, how: str) -> None:
    # Past SQLAlchemy, which would begin a transaction: within one it has no effect.
    connection.connection.cursor().execute(f"PRAGMA synchronous={how}").close()


def _passes(error: DBAPIError | NoConnectionError) -> bool:
    if isinstance(error, OperationalError | InterfaceError | NoConnectionError):
        return True
    return error.connection_invalidated or getattr(error.orig, "sqlstate", None) == READ_ONLY


def cause(error: SQLAlchemyError) -> str:
    """What the database said, in one line."""
    # PostgreSQL's client spreads what it tried over several lines.
    return "; ".join(str(getattr(error, "orig", None) or error).split("\n"))


def _refusal(error: SQLAlchemyError) -> str:
    found = getattr(error, "orig", None)
    if getattr(found, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL or (
        getattr(found, "sqlstate", None) == DISK_FULL
    ):
        return storage_full("the database", cause(error))
    return f"the database refuses: {cause(error)}"


def _shown(url: URL) -> str:
    secrets = {key: "***" for key in url.query if "password" in key}
    return url.update_query_dict(secrets).render_as_string(hide_password=True)
