"""At most one writer: a lock that dies with its process, for each kind of database.

It keeps a second aggregator from starting on the same ledger, and lets one take over when another
dies. It is not what keeps the ledger right: who loses the lock learns of it a little late, and what
it still tries to write then fails on the ledger's own rules (a version exists once, an update is
merged once).
"""

import fcntl
import hashlib
import logging
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Protocol

from sqlalchemy import Connection, Engine, func, select, text
from sqlalchemy.exc import SQLAlchemyError

from aggregator.ledger.database import LedgerError, LedgerUnavailableError, cause

__all__ = ["FileLock", "Lock", "PostgreSQLLock", "Watch", "lock_of"]

# A server takes hours to notice that a client's machine is gone, unless it is told to look.
LOOK_AFTER_CLIENT = (
    "SET tcp_keepalives_idle = 5",
    "SET tcp_keepalives_interval = 5",
    "SET tcp_keepalives_count = 2",
)

_log = logging.getLogger(__name__)


class Lock(Protocol):
    """What at most one process holds. Safe to use from many threads."""

    def acquire(self) -> bool:
        """Try to get it, without waiting; True if it is held now.

        Raises:
            LedgerUnavailableError: the database cannot be asked for now; it may be tried again.
            LedgerError: it can never be had.
        """
        ...

    def held(self) -> bool:
        """Whether it is still held; asks the database. Once lost, it must be acquired again."""
        ...

    def release(self) -> None:
        """Give it up; no error if it is not held."""
        ...


def lock_of(database: Engine, name: str, *, shared: bool = False) -> Lock:
    """A lock of this name on a database; the database itself need not have any tables yet.

    Through a connection pooler it works in session mode only.

    Args:
        database: as ``connect`` gives it.
        name: locks of different names do not know of each other.
        shared: many may hold it at once, while nobody holds it alone; PostgreSQL only.

    Raises:
        LedgerError: the database is in memory, so nobody else could see it.
    """
    if database.dialect.name == "postgresql":
        return PostgreSQLLock(database, name, shared=shared)
    file = database.url.database
    if file in (None, "", ":memory:"):
        raise LedgerError("the database is in memory; give the URL of a file, sqlite:///FILE")
    return FileLock(Path(f"{file}.{name}.lock"))


class FileLock:
    """A lock on a file of this machine.

    Args:
        path: the file; made when it is missing, and left behind. It must not be the database: to
            close a second handle of that would end SQLite's own locks.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._guard = threading.Lock()
        self._file: IO[bytes] | None = None

    def acquire(self) -> bool:
        """See ``Lock``."""
        with self._guard:
            if self._is_mine():
                return True
            self._close()
            try:
                file = self._path.open("wb")
            except OSError as error:
                raise LedgerError(f"cannot write to {self._path}: {error.strerror}") from None
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                file.close()
                return False
            self._file = file
            return True

    def held(self) -> bool:
        """See ``Lock``."""
        with self._guard:
            return self._is_mine()

    def release(self) -> None:
        """See ``Lock``."""
        with self._guard:
            self._close()

    def _is_mine(self) -> bool:
        # Whoever removes the file and makes another can lock that.
        if self._file is None:
            return False
        try:
            return os.path.samestat(os.fstat(self._file.fileno()), self._path.stat())
        except OSError:
            return False

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


class PostgreSQLLock:
    """An advisory lock, held by a connection that is for nothing else.

    When the process dies the server ends the connection and with it the lock, at once; when the
    machine or the network dies, after some 15 seconds. When the server restarts, everybody has lost
    it.

    Args:
        database: the connection is made like its others, but is none of its pool.
        name: locks of different names do not know of each other, nor those of different databases.
        shared: many may hold it at once, while nobody holds it alone.
    """

    def __init__(self, database: Engine, name: str, *, shared: bool = False) -> None:
        self._database, self._shared = database, shared
        digest = hashlib.sha256(f"rivulet {name}".encode()).digest()
        self._key = int.from_bytes(digest[:8], "big", signed=True)
        self._guard = threading.Lock()
        self._connection: Connection | None = None

    def acquire(self) -> bool:
        """See ``Lock``."""
        with self._guard:
            if self._answers():
                return True
            try:
                return self._try()
            except SQLAlchemyError as error:
                self._close()
                raise LedgerUnavailableError(f"the database refuses: {cause(error)}") from None

    def held(self) -> bool:
        """See ``Lock``."""
        with self._guard:
            return self._answers()

    def release(self) -> None:
        """See ``Lock``."""
        with self._guard:
            self._close()

    def _try(self) -> bool:
        self._connection = self._database.connect()
        self._connection.execution_options(isolation_level="AUTOCOMMIT")
        self._connection.detach()
        for setting in LOOK_AFTER_CLIENT:
            self._connection.execute(text(setting))
        lock = func.pg_try_advisory_lock_shared if self._shared else func.pg_try_advisory_lock
        if self._connection.scalar(select(lock(self._key))):
            return True
        self._close()
        return False

    def _answers(self) -> bool:
        if self._connection is None:
            return False
        try:
            self._connection.execute(text("SELECT 1"))
        except SQLAlchemyError:
            self._close()
            return False
        return True

    def _close(self) -> None:
        if self._connection is not None:
            with suppress(SQLAlchemyError):
                self._connection.close()
            self._connection = None


class Watch:
    """Looks after a held lock from a thread of its own.

    A lock that went with its connection is taken again, unless another process was faster.

    Args:
        lock: held already.
        on_lost: called once, from the thread, when another process has it.
        interval_s: how often to look.
    """

    def __init__(self, lock: Lock, *, on_lost: Callable[[], None], interval_s: float = 1.0) -> None:
        self._lock, self._on_lost, self._interval_s = lock, on_lost, interval_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lock", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread; the lock stays as it is."""
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(self._interval_s):
            if not self._lock.held() and not self._regained():
                self._on_lost()
                return

    def _regained(self) -> bool:
        _log.warning("the lock on the ledger is lost; trying to get it back")
        while not self._over.is_set():
            try:
                return self._lock.acquire()
            except LedgerError as error:
                _log.error("no lock on the ledger: %s", error)
            self._over.wait(self._interval_s)
        return True
