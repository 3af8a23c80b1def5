"""What the fold reads back of a task's past, and the lineages that are folded from it.

Reading never holds up the writer, so all of it may be done beside a running service.
"""

from collections.abc import Collection, Iterator

from sqlalchemy import (
    ColumnElement,
    Engine,
    Table,
    and_,
    case,
    delete,
    false,
    func,
    insert,
    not_,
    or_,
    select,
)

from aggregator.ledger.ancestry import Ancestry, Exclusion, Origin, Stretch
from aggregator.ledger.database import reading, transaction
from aggregator.ledger.records import (
    CompactionRecord,
    LineageRecord,
    StoredUpdate,
    TaskRecord,
    VersionRecord,
)
from aggregator.ledger.schema import compactions, lineages, publications, tasks, updates, versions

__all__ = ["Past"]

VERSIONS_AT_ONCE = 200
IDS_AT_ONCE = 500
_STORED = (
    updates.c.id,
    updates.c.device,
    updates.c.base_version,
    updates.c.examples,
    updates.c.payload,
    updates.c.received_at,
)


class Past:
    """Merges of the past, by what a version is made of; part of ``Ledger``.

    Args:
        database: as ``open_database`` gives it.
    """

    def __init__(self, database: Engine) -> None:
        self._database = database

    def tasks(self) -> list[TaskRecord]:
        """Every task, oldest first."""
        query = select(tasks).order_by(tasks.c.created_at, tasks.c.task)
        with reading(self._database) as connection:
            return [TaskRecord(**row) for row in connection.execute(query).mappings()]

    def origins(self, task: str) -> dict[int, Origin]:
        """The versions that no merge made, and where they come from."""
        query = select(versions.c.version, versions.c.origin).where(
            versions.c.task == task, versions.c.origin.is_not(None)
        )
        with reading(self._database) as connection:
            rows = connection.execute(query.order_by(versions.c.version)).all()
        return {row.version: Origin.from_dict(row.origin) for row in rows}

    def newest_version(self, task: str) -> VersionRecord:
        """A task's newest version.

        Raises:
            KeyError: no such task.
        """
        query = select(versions).where(versions.c.task == task)
        with reading(self._database) as connection:
            row = connection.execute(query.order_by(versions.c.version.desc()).limit(1)).first()
        if row is None:
            raise KeyError(task)
        return VersionRecord(**row._mapping)

    def version(self, task: str, version: int) -> VersionRecord | None:
        """One version, or None."""
        query = select(versions).where(versions.c.task == task, versions.c.version == version)
        with reading(self._database) as connection:
            row = connection.execute(query).first()
        return None if row is None else VersionRecord(**row._mapping)

    def between(self, task: str, first: int, last: int) -> Iterator[VersionRecord]:
        """The versions from ``first`` to ``last``, oldest first, read in portions."""
        while first <= last:
            query = select(versions).where(
                versions.c.task == task, versions.c.version.between(first, last)
            )
            with reading(self._database) as connection:
                rows = connection.execute(
                    query.order_by(versions.c.version).limit(VERSIONS_AT_ONCE)
                )
                page = [VersionRecord(**row) for row in rows.mappings()]
            yield from page
            first = page[-1].version + 1 if page else last + 1

    def snapshots(self, task: str) -> list[tuple[int, str]]:
        """The versions that have a snapshot and its blob, oldest first."""
        query = select(versions.c.version, versions.c.sha256)
        there = (versions.c.task == task) & versions.c.sha256.is_not(None)
        with reading(self._database) as connection:
            rows = connection.execute(query.where(there).order_by(versions.c.version))
            return [(row.version, row.sha256) for row in rows]

    def members(self, task: str, version: int | None) -> list[StoredUpdate]:
        """The updates that the merge of a version took, or with None those still to be merged.

        Returns:
            In the order of their ids, which is the order of the fold.
        """
        query = select(*_STORED).where(updates.c.task == task, updates.c.merged_in == version)
        with reading(self._database) as connection:
            rows = connection.execute(query.order_by(updates.c.id))
            return [StoredUpdate(**row) for row in rows.mappings()]

    def waiting(self, task: str, *, known: Collection[int], limit: int) -> list[StoredUpdate]:
        """Updates that wait for a merge, but for those that the caller knows of.

        Ids are given before they can be seen, so a lower one may turn up after a higher one. Of a
        device's own updates the lower one is always seen first.

        Args:
            task: 32 hex characters.
            known: ids of waiting updates.
            limit: look at the oldest so many that wait, the known ones among them.
        """
        with reading(self._database) as connection:
            unmerged = (updates.c.task == task) & updates.c.merged_in.is_(None)
            query = select(updates.c.id).where(unmerged).order_by(updates.c.id).limit(limit)
            new = [id_ for id_ in connection.scalars(query) if id_ not in known]
            found: list[StoredUpdate] = []
            for start in range(0, len(new), IDS_AT_ONCE):
                ids = updates.c.id.in_(new[start : start + IDS_AT_ONCE])
                rows = connection.execute(select(*_STORED).where(ids).order_by(updates.c.id))
                found.extend(StoredUpdate(**row) for row in rows.mappings())
            return found

    def count_before(self, task: str, device: str, id_: int, ancestry: Ancestry) -> int:
        """How many updates of a device were accepted before the one with this id.

        Args:
            task: 32 hex characters.
            device: whose.
            id_: of the update.
            ancestry: of the version that takes it; what was left out there does not count.
        """
        mine = and_(updates.c.task == task, updates.c.device == device, updates.c.id < id_)
        left_out = [
            and_(_merged_within(stretch), _covered(stretch.without))
            for stretch in ancestry
            if stretch.without
        ]
        if left_out:
            # What waits has no version, and is not left out of any.
            mine &= or_(updates.c.merged_in.is_(None), not_(or_(*left_out)))
        with reading(self._database) as connection:
            return int(connection.scalar(select(func.count()).where(mine)) or 0)

    def merged_before(
        self, task: str, device: str, ancestry: Ancestry
    ) -> tuple[StoredUpdate, int] | None:
        """A device's newest update that an ancestry has merged, and the version that took it."""
        mine = and_(updates.c.task == task, updates.c.device == device)
        query = select(*_STORED, updates.c.merged_in).where(mine, _merged_by(ancestry))
        with reading(self._database) as connection:
            row = connection.execute(query.order_by(updates.c.id.desc()).limit(1)).first()
        if row is None:
            return None
        values = dict(row._mapping)
        merged_in = int(values.pop("merged_in"))
        return StoredUpdate(**values), merged_in

    def are_the_same(self, task: str, one: Ancestry, other: Ancestry) -> bool:
        """Whether two ancestries up to the same version have merged the same updates.

        Both follow the same versions, so they differ only in what was left out.
        """
        differences = [
            and_(_merged_within(mine), _covered_by_one(mine.without, theirs.without))
            for mine, theirs in zip(one, other, strict=True)
            if mine.without != theirs.without
        ]
        if not differences:
            return True
        query = select(updates.c.id).where(updates.c.task == task, or_(*differences)).limit(1)
        with reading(self._database) as connection:
            return connection.execute(query).first() is None

    def left_out(
        self, task: str, ancestry: Ancestry, without: Exclusion
    ) -> tuple[int, int, int, int]:
        """What an exclusion takes out of an ancestry that has merged it.

        Returns:
            How many updates of how many versions, and the first and the last of those versions;
            0 where there are none.
        """
        gone = and_(updates.c.task == task, _merged_by(ancestry), _covered(frozenset({without})))
        count, merged_in = func.count(), updates.c.merged_in
        query = select(
            count, func.count(merged_in.distinct()), func.min(merged_in), func.max(merged_in)
        )
        with reading(self._database) as connection:
            row = connection.execute(query.where(gone)).one()
        return row[0], row[1], row[2] or 0, row[3] or 0

    def emptied(self, task: str, before: Ancestry, after: Ancestry) -> list[int]:
        """The versions whose merge has updates left in one ancestry and none in another."""
        merged_in = updates.c.merged_in
        had = func.sum(case((_merged_by(before), 1), else_=0))
        has = func.sum(case((_merged_by(after), 1), else_=0))
        query = select(merged_in).where(updates.c.task == task, merged_in.is_not(None))
        query = query.group_by(merged_in).having(had > 0, has == 0).order_by(merged_in)
        with reading(self._database) as connection:
            return [row.merged_in for row in connection.execute(query)]

    def waiting_among(self, task: str, without: Exclusion) -> list[int]:
        """The ids of updates that wait for a merge and that an exclusion covers."""
        waiting = and_(updates.c.task == task, updates.c.merged_in.is_(None))
        query = select(updates.c.id).where(waiting, _covered(frozenset({without})))
        with reading(self._database) as connection:
            return [row.id for row in connection.execute(query.order_by(updates.c.id))]

    def add_lineage(self, lineage: LineageRecord) -> int:
        """Record a lineage, whose blob must be on the disk already; returns its id."""
        row = {n: getattr(lineage, n) for n in lineage.__dataclass_fields__ if n != "id"}
        with transaction(self._database) as connection:
            new = connection.execute(insert(lineages).returning(lineages.c.id), row)
            return int(new.scalar_one())

    def lineages(self, task: str) -> list[LineageRecord]:
        """A task's lineages, oldest first."""
        query = select(lineages).where(lineages.c.task == task).order_by(lineages.c.id)
        with reading(self._database) as connection:
            return [LineageRecord(**row) for row in connection.execute(query).mappings()]

    def lineage(self, task: str, id_: int) -> LineageRecord | None:
        """One lineage, or None."""
        query = select(lineages).where(lineages.c.task == task, lineages.c.id == id_)
        with reading(self._database) as connection:
            row = connection.execute(query).first()
        return None if row is None else LineageRecord(**row._mapping)

    def forget_lineage(self, task: str, id_: int) -> None:
        """Forget a lineage whose file goes."""
        with transaction(self._database) as connection:
            connection.execute(
                delete(lineages).where(lineages.c.task == task, lineages.c.id == id_)
            )

    def lineages_of_blob(self, sha256: str) -> list[int]:
        """The lineages whose snapshot is this blob."""
        query = select(lineages.c.id).where(lineages.c.sha256 == sha256)
        with reading(self._database) as connection:
            return [row.id for row in connection.execute(query)]

    def versions_of_blob(self, sha256: str) -> list[tuple[str, int]]:
        """The versions whose parameters are this blob, as (task, version)."""
        return self._users_of_blob(versions, sha256)

    def publications_of_blob(self, sha256: str) -> list[tuple[str, int]]:
        """The publications whose file is this blob, as (task, version)."""
        return self._users_of_blob(publications, sha256)

    def is_used(self, sha256: str) -> bool:
        """Whether a version, a publication or a lineage names a blob."""
        return bool(
            self.versions_of_blob(sha256)
            or self.publications_of_blob(sha256)
            or self.lineages_of_blob(sha256)
        )

    def compaction(self, task: str) -> CompactionRecord:
        """How far a task's payloads were dropped."""
        query = select(compactions).where(compactions.c.task == task)
        with reading(self._database) as connection:
            row = connection.execute(query).first()
        return CompactionRecord(task=task) if row is None else CompactionRecord(**row._mapping)

    def newest_before(self, task: str, at: float) -> int:
        """The newest version such that it and all before it were made before a time; or 0."""
        later = (versions.c.task == task) & (versions.c.created_at >= at)
        first = select(func.min(versions.c.version)).where(later & (versions.c.version > 0))
        with reading(self._database) as connection:
            found = connection.scalar(first)
        return self.newest_version(task).version if found is None else int(found) - 1

    def count_merged(self, task: str, *, first: int, last: int) -> int:
        """How many updates were merged from one version to another."""
        within = (versions.c.task == task) & versions.c.version.between(first, last)
        query = select(func.coalesce(func.sum(versions.c.updates), 0)).where(within)
        with reading(self._database) as connection:
            return int(connection.scalar(query) or 0)

    def oldest_merged(self, task: str, *, after: int) -> tuple[int, float] | None:
        """The first update that was merged after a version: its id, and when it was received."""
        later = (updates.c.task == task) & (updates.c.merged_in > after)
        query = select(updates.c.id, updates.c.received_at).where(later)
        query = query.order_by(updates.c.merged_in, updates.c.id).limit(1)
        with reading(self._database) as connection:
            row = connection.execute(query).first()
        return None if row is None else (row.id, row.received_at)

    def needs_old_payloads(self, task: str, *, after: int) -> bool:
        """Whether the rule in force, or that of a version after one, looks back at old deltas."""
        steered = select(tasks.c.task).where(
            tasks.c.task == task, tasks.c.rule["kind"].as_string() == "ca2fl"
        )
        made = select(versions.c.version).where(
            versions.c.task == task,
            versions.c.version > after,
            versions.c.rule["kind"].as_string() == "ca2fl",
        )
        with reading(self._database) as connection:
            return any(connection.execute(query.limit(1)).first() for query in (steered, made))

    def _users_of_blob(self, table: Table, sha256: str) -> list[tuple[str, int]]:
        with reading(self._database) as connection:
            query = select(table.c.task, table.c.version).where(table.c.sha256 == sha256)
            return [(row.task, row.version) for row in connection.execute(query)]


def _merged_by(ancestry: Ancestry) -> ColumnElement[bool]:
    return or_(
        *[and_(_merged_within(stretch), not_(_covered(stretch.without))) for stretch in ancestry]
    )


def _merged_within(stretch: Stretch) -> ColumnElement[bool]:
    return updates.c.merged_in.between(stretch.first, stretch.last)


def _covered_by_one(
    these: frozenset[Exclusion], those: frozenset[Exclusion]
) -> ColumnElement[bool]:
    mine, theirs = _covered(these), _covered(those)
    return or_(and_(mine, not_(theirs)), and_(theirs, not_(mine)))


def _covered(exclusions: frozenset[Exclusion]) -> ColumnElement[bool]:
    """Whether one of some exclusions covers the row."""
    found = []
    for exclusion in exclusions:
        conditions: list[ColumnElement[bool]] = []
        if exclusion.devices:
            conditions.append(updates.c.device.in_(exclusion.devices))
        if exclusion.since is not None:
            conditions.append(updates.c.received_at >= exclusion.since)
        if exclusion.until is not None:
            conditions.append(updates.c.received_at < exclusion.until)
        found.append(and_(*conditions))
    return or_(false(), *found)
