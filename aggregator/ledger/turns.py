"""Several processes take updates in: each update still gets one decision.

Two may get the same update at the same time, and one may find it good while the other refuses it,
which no constraint of a table would see. So a transaction that decides on a device's updates first
takes a lock of that device's own, and looks again. It also makes the ids of a device's updates
visible in their order, which rules that look at a device's past rely on when they are replayed.

SQLite has one writer, so nothing of this is needed there.
"""

import hashlib
from collections.abc import Iterable

from sqlalchemy import Connection, text

from aggregator.ledger.database import LedgerError

__all__ = ["DecidedMeanwhileError", "take_turns"]

_LOCK = text("SELECT pg_advisory_xact_lock(key) FROM unnest(CAST(:keys AS bigint[])) AS key")


class DecidedMeanwhileError(LedgerError):
    """Something of a batch was decided meanwhile by another process. Nothing was written.

    Judge the batch again.
    """


def take_turns(connection: Connection, names: Iterable[str]) -> None:
    """Wait until no other transaction has one of these names; keep them until this one ends."""
    if connection.dialect.name != "postgresql":
        return
    # All take them in the same order, so that no two wait for each other.
    keys = sorted({_key(name) for name in names})
    if keys:
        connection.execute(_LOCK, {"keys": keys})


def _key(name: str) -> int:
    digest = hashlib.sha256(f"rivulet turn {name}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)
