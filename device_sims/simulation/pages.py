"""A file of pages: what is not needed now, by number."""

import sqlite3
from pathlib import Path

__all__ = ["Pages"]

CACHE_KIB = 16 << 10
PAGE_BYTES = 8 << 10


class Pages:
    """Keeps bytes by number, on the disk and out of memory. It does not outlive the process.

    Args:
        path: the file; nothing may be there.
    """

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        for pragma in (
            f"page_size = {PAGE_BYTES}",
            f"cache_size = -{CACHE_KIB}",
            # Nobody reads it after a crash.
            "journal_mode = OFF",
            "synchronous = OFF",
            "locking_mode = EXCLUSIVE",
        ):
            self._connection.execute(f"PRAGMA {pragma}")
        self._connection.execute("CREATE TABLE pages (number INTEGER PRIMARY KEY, page BLOB)")
        # Never committed: changed pages go to the file when the cache is full, and no sooner.
        self._connection.execute("BEGIN")

    def write(self, number: int, page: bytes) -> None:
        """Keep a page, instead of the one before."""
        self._connection.execute("INSERT OR REPLACE INTO pages VALUES (?, ?)", (number, page))

    def read(self, number: int) -> bytes:
        """A page.

        Raises:
            KeyError: it was never written.
        """
        query = "SELECT page FROM pages WHERE number = ?"
        row = self._connection.execute(query, (number,)).fetchone()
        if row is None:
            raise KeyError(number)
        return bytes(row[0])

    def close(self) -> None:
        """Give the file back."""
        self._connection.close()
