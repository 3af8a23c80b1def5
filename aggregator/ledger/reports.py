"""Read-only views of the ledger for the API. They run beside the writer and never hold it up."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, Select, and_, case, cast, func, literal, not_, select

from aggregator.ledger.database import reading
from aggregator.ledger.past import Past
from aggregator.ledger.records import Event, PublicationRecord, TaskRecord, VersionRecord
from aggregator.ledger.schema import (
    devices,
    events,
    participants,
    publications,
    quality,
    tallies,
    tasks,
    updates,
    versions,
)
from wire.messages import Metric, StatusState

__all__ = ["DeviceCounts", "DeviceReport", "Reports", "Tally", "UpdateReport", "VersionReport"]

METRICS = tuple(metric.slug for metric in Metric)


@dataclass(frozen=True, slots=True)
class Tally:
    """A running total; what ``key`` means depends on the kind."""

    kind: str
    key: int
    value: int


@dataclass(frozen=True, slots=True)
class VersionReport:
    """A version and what devices measured on it: metric slug to mean; absent if nobody did."""

    version: VersionRecord
    quality: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateReport:
    """An accepted update without its payload."""

    id: int
    device: str
    sequence: int
    base_version: int
    merged_in: int | None
    examples: int
    size_bytes: int
    metrics: Mapping[str, float]
    received_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceReport:
    """A device of a task; ``state`` is ``unknown`` while it has sent no status."""

    device: str
    state: str
    last_seen: float
    accepted: int
    rejected: int
    duplicate: int
    bytes: int
    last_version: int | None
    agent: str | None
    runtime: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceCounts:
    """Devices that are known, that are connected, and that sent an update lately."""

    known: int
    online: int
    active: int


class Reports:
    """Queries for the API and the summary.

    Args:
        database: as ``open_database`` gives it.

    Attributes:
        past: what a task was made of.
    """

    def __init__(self, database: Engine) -> None:
        self._database = database
        self.past = Past(database)

    def task(self, task: str) -> TaskRecord | None:
        """One task, or None."""
        rows = self._rows(select(tasks).where(tasks.c.task == task))
        return TaskRecord(**rows[0]) if rows else None

    def tasks(self) -> list[tuple[TaskRecord, int]]:
        """Every task with its newest version, oldest task first."""
        newest = select(versions.c.task, func.max(versions.c.version).label("newest")).group_by(
            versions.c.task
        )
        joined = newest.subquery()
        query = select(tasks, joined.c.newest).join(joined, tasks.c.task == joined.c.task)
        rows = self._rows(query.order_by(tasks.c.created_at, tasks.c.task))
        return [(TaskRecord(**_without(row, "newest")), row["newest"]) for row in rows]

    def versions(
        self, task: str, *, after: int = -1, limit: int = 100, only: int | None = None
    ) -> list[VersionReport]:
        """Versions later than ``after``, oldest first; or the one of number ``only``."""
        wanted = versions.c.version > after if only is None else versions.c.version == only
        query = select(versions).where(versions.c.task == task, wanted)
        rows = self._rows(query.order_by(versions.c.version).limit(limit))
        records = [VersionRecord(**row) for row in rows]
        if not records:
            return []
        first, last = records[0].version, records[-1].version
        measured = self._quality(task, width=1, first=first, last=last)
        means = {row["bin"]: _means(row) for row in measured}
        return [VersionReport(record, means.get(record.version, {})) for record in records]

    def newest_version(self, task: str) -> int:
        """The newest version's number, or -1 for an unknown task."""
        query = select(func.max(versions.c.version).label("n")).where(versions.c.task == task)
        newest = self._rows(query)[0]["n"]
        return -1 if newest is None else int(newest)

    def publication(self, task: str, version: int) -> PublicationRecord | None:
        """What devices get of a version; None if it was not published, or long ago."""
        wanted = (publications.c.task == task) & (publications.c.version == version)
        rows = self._rows(select(publications).where(wanted))
        return PublicationRecord(**rows[0]) if rows else None

    def newest_publication(self, task: str) -> int:
        """The newest published version's number, or -1."""
        query = select(func.max(publications.c.version).label("n"))
        newest = self._rows(query.where(publications.c.task == task))[0]["n"]
        return -1 if newest is None else int(newest)

    def quality(self, task: str, *, bins: int) -> list[dict[str, Any]]:
        """What devices measured, by base version, in at most ``bins`` equal ranges of versions.

        Returns:
            For each range that has reports: ``version`` (its last), ``reports`` (devices' reports),
            and the mean of each metric or None.
        """
        newest = self.newest_version(task)
        width = newest // bins + 1
        rows = self._quality(task, width=width, first=0, last=newest)
        return [
            {
                "version": min((row["bin"] + 1) * width - 1, newest),
                "reports": max(row[f"{metric}_reports"] for metric in METRICS),
                **{metric: _means(row).get(metric) for metric in METRICS},
            }
            for row in rows
        ]

    def updates(
        self, task: str, *, limit: int = 100, device: str | None = None
    ) -> list[UpdateReport]:
        """Accepted updates, newest first."""
        columns = [updates.c[name] for name in UpdateReport.__dataclass_fields__]
        query = select(*columns).where(updates.c.task == task)
        if device is not None:
            query = query.where(updates.c.device == device)
        rows = self._rows(query.order_by(updates.c.id.desc()).limit(limit))
        return [UpdateReport(**row) for row in rows]

    def pending(self, task: str) -> int:
        """Accepted updates that no merge has taken yet."""
        waiting = and_(updates.c.task == task, updates.c.merged_in.is_(None))
        return int(self._rows(select(func.count().label("n")).where(waiting))[0]["n"])

    def devices(self, task: str, *, after: str = "", limit: int = 1000) -> list[DeviceReport]:
        """Devices that took part in a task or in none yet, by name, from after ``after``."""
        query = _devices_of(task).subquery()
        rows = self._rows(
            select(query).where(query.c.device > after).order_by(query.c.device).limit(limit)
        )
        return [DeviceReport(**row) for row in rows]

    def recent_devices(self, task: str, *, limit: int) -> list[DeviceReport]:
        """The devices that ``devices`` would list and that were seen last, the latest first."""
        query = _devices_of(task).subquery()
        latest = select(query).order_by(query.c.last_seen.desc(), query.c.device)
        return [DeviceReport(**row) for row in self._rows(latest.limit(limit))]

    def device_counts(self, task: str, *, active_since: float) -> DeviceCounts:
        """How many devices ``devices`` would list, are online, and sent something since."""
        query = _devices_of(task).subquery()
        online = query.c.state == StatusState.ONLINE.value
        active = (query.c.last_seen >= active_since) & query.c.last_version.is_not(None)
        counts = select(
            func.count().label("known"),
            func.coalesce(func.sum(case((online, 1), else_=0)), 0).label("online"),
            func.coalesce(func.sum(case((active, 1), else_=0)), 0).label("active"),
        ).select_from(query)
        return DeviceCounts(**self._rows(counts)[0])

    def tallies(self, task: str) -> list[Tally]:
        """Every running total of a task, by kind and key."""
        query = select(tallies.c.kind, tallies.c.key, tallies.c.value)
        rows = self._rows(
            query.where(tallies.c.task == task).order_by(tallies.c.kind, tallies.c.key)
        )
        return [Tally(**row) for row in rows]

    def events(self, *, after: int = 0, limit: int = 100) -> list[Event]:
        """Events later than the id ``after``, oldest first."""
        query = select(events).where(events.c.id > after).order_by(events.c.id)
        return [Event(**row) for row in self._rows(query.limit(limit))]

    def newest_event(self) -> int:
        """The id of the newest event, or 0."""
        return int(self._rows(select(func.max(events.c.id).label("n")))[0]["n"] or 0)

    def _quality(
        self, task: str, *, width: int, first: int, last: int
    ) -> Sequence[Mapping[str, Any]]:
        at = quality.c.version // width
        of = {metric: quality.c.metric == metric for metric in METRICS}
        sums = [
            # PostgreSQL's sum of whole numbers is a decimal.
            cast(
                func.sum(case((of[metric], quality.c[name]), else_=0)), quality.c[name].type
            ).label(f"{metric}_{name}")
            for metric in METRICS
            for name in ("reports", "total")
        ]
        inside = quality.c.version.between(first, last)
        query = select(at.label("bin"), *sums).where(quality.c.task == task, inside)
        return self._rows(query.group_by(at).order_by(at))

    def _rows(self, query: Select[Any]) -> list[dict[str, Any]]:
        with reading(self._database) as connection:
            return [dict(row) for row in connection.execute(query).mappings()]


def _devices_of(task: str) -> Select[Any]:
    mine = and_(participants.c.device == devices.c.device, participants.c.task == task)
    seen = (
        select(*_device_columns(participants.c.device))
        .select_from(participants.outerjoin(devices, devices.c.device == participants.c.device))
        .where(participants.c.task == task)
    )
    anywhere = participants.alias()
    elsewhere = select(literal(1)).where(anywhere.c.device == devices.c.device).exists()
    idle = (
        select(*_device_columns(devices.c.device))
        .select_from(devices.outerjoin(participants, mine))
        .where(not_(elsewhere))
    )
    return select(seen.union_all(idle).subquery())


def _device_columns(device: Any) -> list[Any]:
    counters = ("accepted", "rejected", "duplicate", "bytes")
    return [
        device.label("device"),
        func.coalesce(devices.c.state, "unknown").label("state"),
        func.coalesce(participants.c.last_seen, devices.c.at).label("last_seen"),
        *[func.coalesce(participants.c[name], 0).label(name) for name in counters],
        case((participants.c.last_version < 0, None), else_=participants.c.last_version).label(
            "last_version"
        ),
        devices.c.agent.label("agent"),
        devices.c.runtime.label("runtime"),
    ]


def _means(row: Mapping[str, Any]) -> dict[str, float]:
    counts = {metric: row[f"{metric}_reports"] for metric in METRICS}
    return {metric: row[f"{metric}_total"] / n for metric, n in counts.items() if n}


def _without(row: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key != name}
