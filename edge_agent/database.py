"""The device's SQLite file: opened safely, and brought to the current schema or refused."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from edge_agent.errors import StoreError

__all__ = ["MIGRATIONS", "Database"]

BUSY_TIMEOUT_S = 10.0
LOG_BYTES = 4 << 20
CACHE_KIB = 256

# One entry a schema version, never edited once released: a device may have slept through several.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE interactions (
            id INTEGER PRIMARY KEY,
            item INTEGER NOT NULL,
            at REAL NOT NULL,
            UNIQUE (at, item)
        )""",
        "CREATE TABLE state (name TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID",
        "CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID",
        "CREATE TABLE manifests (task TEXT PRIMARY KEY, raw BLOB NOT NULL)",
        """CREATE TABLE private (
            task TEXT NOT NULL,
            parameter TEXT NOT NULL,
            value BLOB NOT NULL,
            PRIMARY KEY (task, parameter)
        )""",
        """CREATE TABLE residual_tensor (
            number INTEGER PRIMARY KEY,
            task TEXT NOT NULL,
            parameter TEXT NOT NULL,
            UNIQUE (task, parameter)
        )""",
        """CREATE TABLE residual (
            tensor INTEGER NOT NULL,
            row INTEGER NOT NULL,
            value BLOB NOT NULL,
            PRIMARY KEY (tensor, row)
        ) WITHOUT ROWID""",
        """CREATE TABLE outbox (
            sequence INTEGER PRIMARY KEY,
            task TEXT NOT NULL,
            payload BLOB NOT NULL,
            base_version INTEGER NOT NULL,
            created_at REAL NOT NULL,
            attempts INTEGER NOT NULL,
            next_attempt_at REAL NOT NULL
        )""",
    ),
    # JSON of an object, context field to id; NULL where nothing is known.
    ("ALTER TABLE interactions ADD COLUMN context TEXT",),
    # How many updates the device had made when the row was left out.
    (
        "ALTER TABLE residual ADD COLUMN seen INTEGER NOT NULL DEFAULT 0",
        "UPDATE residual SET seen = "
        "coalesce((SELECT value FROM counters WHERE name = 'created'), 0)",
    ),
)


class Database:
    """One connection to the device's file, with explicit transactions.

    Several processes may open the same file (the running agent and a command); writers wait for
    each other. A connection is used by one thread at a time, not by one thread only.

    Args:
        path: the file; its folder must exist.
        durability: ``full`` syncs each transaction, ``normal`` only checkpoints.

    Raises:
        StoreError: the file is no database, cannot be opened, or is newer than this code.
    """

    def __init__(self, path: Path, *, durability: str = "full") -> None:
        try:
            self._connection = sqlite3.connect(
                path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
            )
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute(f"PRAGMA synchronous = {durability}")
            self._connection.execute(f"PRAGMA journal_size_limit = {LOG_BYTES}")
            self._connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
            self._migrate(path)
        except sqlite3.Error as error:
            raise StoreError(f"cannot open the database {path}: {error}") from None

    def execute(self, statement: str, values: tuple[object, ...] = ()) -> sqlite3.Cursor:
        """Run one statement; StoreError where SQLite fails."""
        with _named_errors():
            return self._connection.execute(statement, values)

    def execute_many(self, statement: str, rows: Sequence[tuple[object, ...]]) -> sqlite3.Cursor:
        """Run one statement for each row of values; StoreError where SQLite fails."""
        with _named_errors():
            return self._connection.executemany(statement, rows)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All of the block, or nothing of it.

        Raises:
            StoreError: the disk is full or broken, or another process holds the file too long.
        """
        try:
            self.execute("BEGIN IMMEDIATE")
            yield
            self.execute("COMMIT")
        except BaseException:
            # A full disk may have rolled back already.
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    def close(self) -> None:
        """Give the file back; the last one out folds the write-ahead log into it."""
        self._connection.close()

    def _migrate(self, path: Path) -> None:
        if self._version() == len(MIGRATIONS):
            return
        with self.transaction():
            version = self._version()
            if version > len(MIGRATIONS):
                raise StoreError(
                    f"{path} has schema version {version}, but this software knows only "
                    f"{len(MIGRATIONS)}; install the newer software again, or move the file away"
                )
            for statements in MIGRATIONS[version:]:
                for statement in statements:
                    self._connection.execute(statement)
            self._connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")

    def _version(self) -> int:
        return int(self._connection.execute("PRAGMA user_version").fetchone()[0])


@contextmanager
def _named_errors() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise StoreError(f"the database failed: {error}") from error
