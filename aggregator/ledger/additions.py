"""What a batch of messages adds to the tables of the ledger."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from sqlalchemy import Connection, Insert, case, insert

from aggregator.ledger.database import upsert
from aggregator.ledger.intake import Intake, participant_rows, quality_rows, tally_rows
from aggregator.ledger.records import Event
from aggregator.ledger.schema import (
    devices,
    events,
    participants,
    quality,
    rejections,
    tallies,
    updates,
)
from aggregator.ledger.strangers import remember

__all__ = ["add_events", "add_intake", "add_tallies"]

CLOCKS_DIFFER_S = 10.0

_NEW_UPDATES = insert(updates).returning(updates.c.id, sort_by_parameter_order=True)


def add_intake(connection: Connection, intake: Intake) -> list[int]:
    """Add all of a batch; the ids of its updates, in their order."""
    ids = _insert_updates(connection, intake)
    _insert_rejections(connection, intake)
    _add_to_totals(connection, intake)
    _set_statuses(connection, intake)
    add_events(connection, intake.events)
    return ids


def add_tallies(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Add to counters: rows of ``tallies`` with distinct keys."""
    if rows:
        connection.execute(_adding_tallies(connection.dialect.name), rows)


def add_events(connection: Connection, added: Sequence[Event]) -> None:
    """Record what an operator shall know."""
    if added:
        rows = [
            {
                "at": e.at,
                "kind": e.kind,
                "task": e.task,
                "device": e.device,
                # PostgreSQL's text cannot hold it, and an error may quote what a device sent.
                "detail": e.detail.replace("\0", "\N{REPLACEMENT CHARACTER}"),
            }
            for e in added
        ]
        connection.execute(insert(events), rows)


def _insert_updates(connection: Connection, intake: Intake) -> list[int]:
    if not intake.updates:
        return []
    rows = [
        {
            **new.key._asdict(),
            "base_version": new.base_version,
            "examples": new.examples,
            "payload": new.payload,
            "size_bytes": new.size_bytes,
            "metrics": dict(new.metrics),
            "received_at": new.received_at,
        }
        for new in intake.updates
    ]
    return list(connection.scalars(_NEW_UPDATES, rows))


def _insert_rejections(connection: Connection, intake: Intake) -> None:
    known = [r for r in intake.rejections if r.key.task in intake.known_tasks]
    if known:
        rows = [{**r.key._asdict(), "reason": int(r.reason), "at": r.at} for r in known]
        connection.execute(insert(rejections), rows)
    remember(connection, [r for r in intake.rejections if r.key.task not in intake.known_tasks])


def _add_to_totals(connection: Connection, intake: Intake) -> None:
    dialect = connection.dialect.name
    add_tallies(connection, tally_rows(intake))
    if rows := participant_rows(intake):
        connection.execute(_adding_participants(dialect), rows)
    if rows := quality_rows(intake):
        connection.execute(_adding_quality(dialect), rows)


def _set_statuses(connection: Connection, intake: Intake) -> None:
    # The last word of a device in the batch counts: a row may be written only once by a statement.
    latest = {status.device: status for status in intake.statuses}
    if latest:
        rows = [
            {
                "device": s.device,
                "state": s.state,
                "agent": s.agent,
                "runtime": s.runtime,
                "at": s.at,
            }
            for _, s in sorted(latest.items())
        ]
        connection.execute(_setting_statuses(connection.dialect.name), rows)


# Each statement is made once: SQLAlchemy takes longer to make one than SQLite to carry it out.


@cache
def _adding_participants(dialect: str) -> Insert:
    new = upsert(dialect, participants)
    sums = ("accepted", "rejected", "duplicate", "bytes")
    changes = {name: participants.c[name] + new.excluded[name] for name in sums}
    for name in ("last_sequence", "last_version", "last_seen"):
        old, later = participants.c[name], new.excluded[name]
        changes[name] = case((later > old, later), else_=old)
    return _on_conflict(new, ("task", "device"), changes)


@cache
def _adding_quality(dialect: str) -> Insert:
    new = upsert(dialect, quality)
    changes = {name: quality.c[name] + new.excluded[name] for name in ("reports", "total")}
    return _on_conflict(new, ("task", "version", "metric"), changes)


@cache
def _adding_tallies(dialect: str) -> Insert:
    new = upsert(dialect, tallies)
    changes = {"value": tallies.c.value + new.excluded.value}
    return _on_conflict(new, ("task", "kind", "key"), changes)


@cache
def _setting_statuses(dialect: str) -> Insert:
    new = upsert(dialect, devices)
    # Another process may have taken in a later one already; or a clock was set back.
    age_s = devices.c.at - new.excluded.at
    later = (age_s <= 0) | (age_s > CLOCKS_DIFFER_S)
    changes = {
        name: case((later, new.excluded[name]), else_=devices.c[name])
        for name in ("state", "agent", "runtime", "at")
    }
    return _on_conflict(new, ("device",), changes)


def _on_conflict(new: Any, key: tuple[str, ...], changes: Mapping[str, Any]) -> Insert:
    statement: Insert = new.on_conflict_do_update(index_elements=list(key), set_=dict(changes))
    return statement
