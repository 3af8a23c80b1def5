"""The databases that a ledger can be in, each ready to be measured."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from device_sims.postgresql import PostgreSQL, installed

__all__ = ["POSTGRESQL", "SQLITE", "database_settings", "kinds"]

SQLITE, POSTGRESQL = "SQLite", "PostgreSQL"


def kinds() -> list[str]:
    """Those that are installed; SQLite always is."""
    if installed() is None:
        print("PostgreSQL is not installed, so only SQLite is measured", flush=True)
        return [SQLITE]
    return [SQLITE, POSTGRESQL]


@contextmanager
def database_settings(kind: str, data: Path) -> Iterator[str]:
    """The URL of an empty database that waits for the disk.

    Args:
        kind: one of ``kinds``.
        data: folder of the aggregator's data.
    """
    if kind == SQLITE:
        data.mkdir(parents=True, exist_ok=True)
        yield f"sqlite:///{data.resolve() / 'ledger.db'}"
        return
    with PostgreSQL(durable=True) as server:
        yield server.create_database()
