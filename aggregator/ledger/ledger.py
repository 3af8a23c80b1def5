"""The ledger: what is written to it. What the fold reads back is in ``past``."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Insert,
    bindparam,
    case,
    delete,
    func,
    insert,
    not_,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError

from aggregator.ledger.database import transaction, upsert
from aggregator.ledger.intake import Intake, participant_rows, quality_rows, tally_rows
from aggregator.ledger.past import Past
from aggregator.ledger.records import (
    CompactionRecord,
    Decision,
    Event,
    Head,
    MergeRecord,
    PublicationRecord,
    TaskRecord,
    UpdateKey,
    VersionRecord,
)
from aggregator.ledger.schema import (
    commits,
    compactions,
    devices,
    events,
    participants,
    publications,
    quality,
    rejections,
    schema_version,
    tallies,
    tasks,
    updates,
    versions,
)
from aggregator.ledger.strangers import meet_again, remember
from aggregator.ledger.term import begin_term, keep_term
from aggregator.ledger.turns import DecidedMeanwhileError, take_turns
from aggregator.norms import WINDOW
from wire.messages import Outcome, Refusal

__all__ = ["Ledger"]

KEPT_EVENTS = 10_000
KEPT_SECONDS = 600
CLOCKS_DIFFER_S = 10.0

_FIND_UPDATE = select(updates.c.id).where(
    updates.c.task == bindparam("task"),
    updates.c.device == bindparam("device"),
    updates.c.sequence == bindparam("sequence"),
)
_FIND_REJECTION = select(rejections.c.reason).where(
    rejections.c.task == bindparam("task"),
    rejections.c.device == bindparam("device"),
    rejections.c.sequence == bindparam("sequence"),
)
_NEW_UPDATES = insert(updates).returning(updates.c.id, sort_by_parameter_order=True)
_NEW_VERSION = insert(versions)
_MARK_MERGED = (
    update(updates)
    .where(updates.c.id == bindparam("member"), updates.c.merged_in.is_(None))
    .values(merged_in=bindparam("version"))
)


class Ledger(Past):
    """The durable record of accepted updates and of the merges that took them.

    Every method is one transaction; one that raises ``LedgerUnavailableError`` wrote nothing. One
    process at a time makes tasks and versions; on PostgreSQL several may take updates in.
    ``Reports`` reads beside them.

    Args:
        database: as ``open_database`` gives it. The ledger does not close it.
    """

    def __init__(self, database: Engine) -> None:
        super().__init__(database)
        self._term: int | None = None

    def take_over(self) -> None:
        """Begin a term: other ledgers that have begun one can write nothing from now on.

        All but ``take_in`` and ``check``, that is, and they raise SupersededError.
        """
        with transaction(self._database) as connection:
            term = begin_term(connection)
        self._term = term

    @contextmanager
    def _writing(self, *, lasting: bool = True) -> Iterator[Connection]:
        with transaction(self._database, lasting=lasting) as connection:
            if self._term is not None:
                keep_term(connection, self._term)
            yield connection

    def create_task(self, task: TaskRecord, first: VersionRecord, event: Event) -> None:
        """Record a new task together with its version 0.

        Raises:
            sqlalchemy.exc.IntegrityError: the task exists.
        """
        with self._writing() as connection:
            take_turns(connection, [task.task])
            connection.execute(insert(tasks), _row(task))
            connection.execute(insert(versions), _row(first))
            meet_again(connection, task.task)
            _add_events(connection, [event])

    def steer(self, task: TaskRecord, event: Event, *, forget_norms: bool = False) -> None:
        """Replace what is steered of a task: paused, training, codec and rule.

        Args:
            task: the task with its changes.
            event: what an operator reads of it.
            forget_norms: whether the norms accepted so far say nothing about what comes now.
        """
        with self._writing() as connection:
            connection.execute(
                update(tasks)
                .where(tasks.c.task == task.task)
                .values(
                    paused=task.paused, training=task.training, codec=task.codec, rule=task.rule
                )
            )
            if forget_norms:
                connection.execute(delete(tallies).where(_norms_of(task.task)))
            _add_events(connection, [event])

    def norms(self, task: str) -> dict[int, int]:
        """The histogram of the norms accepted lately: counts above 0 by bucket."""
        with transaction(self._database) as connection:
            query = select(tallies.c.key, tallies.c.value).where(_norms_of(task))
            rows = connection.execute(query.where(tallies.c.value > 0))
            return {row.key: row.value for row in rows}

    def decisions(self, keys: Sequence[UpdateKey]) -> dict[UpdateKey, Decision]:
        """What was decided before on these updates.

        Keys that are new are left out, and those whose task does not exist.
        """
        with transaction(self._database) as connection:
            return _decisions(connection, keys)

    def take_in(self, intake: Intake) -> list[int]:
        """Commit a batch.

        Returns:
            The ids of ``intake.updates``, in their order.

        Raises:
            DecidedMeanwhileError: an update was decided before, or a task was made.
        """
        try:
            with transaction(self._database) as connection:
                _take_turns(connection, intake)
                ids = _insert_updates(connection, intake)
                _insert_rejections(connection, intake)
                _add_to_totals(connection, intake)
                _set_statuses(connection, intake)
                _add_events(connection, intake.events)
        except IntegrityError as error:
            raise DecidedMeanwhileError("an update was decided before") from error
        return ids

    def add_version(
        self,
        version: VersionRecord,
        members: Sequence[int],
        staleness: Mapping[int, int],
        event: Event | None = None,
    ) -> None:
        """Record a version that no merge made, or one merge; see ``add_merges``.

        Args:
            version: the new version.
            members: ids of the merged updates; of one with an origin, ids of those that are left
                out for good.
            staleness: how many of them had which staleness.
            event: what the operator shall know of it.
        """
        with self._writing(lasting=version.origin is not None) as connection:
            _insert_versions(connection, [MergeRecord(version, members, staleness)])
            _add_events(connection, [event] if event is not None else [])

    def add_merges(self, merges: Sequence[MergeRecord]) -> None:
        """Record merges, one or more, in their order and all together.

        They need not be on the disk yet: all that leaves the machine after them, a publication or a
        receipt, is committed after them. If they are forgotten with the machine's power, their
        updates wait again and are merged anew.
        """
        with self._writing(lasting=False) as connection:
            _insert_versions(connection, merges)

    def add_snapshot(self, task: str, version: int, sha256: str, size_bytes: int) -> None:
        """Record that a version has a snapshot; the blob must be on the disk already."""
        self._set_snapshot(task, version, sha256=sha256, size_bytes=size_bytes)

    def forget_snapshot(self, task: str, version: int) -> None:
        """Record that a version has a snapshot no more."""
        self._set_snapshot(task, version, sha256=None, size_bytes=None)

    def _set_snapshot(
        self, task: str, version: int, *, sha256: str | None, size_bytes: int | None
    ) -> None:
        at = (versions.c.task == task) & (versions.c.version == version)
        with self._writing() as connection:
            connection.execute(
                update(versions).where(at).values(sha256=sha256, size_bytes=size_bytes)
            )

    def add_publication(self, publication: PublicationRecord) -> None:
        """Record what devices get of a version; its blob must be on the disk already."""
        with self._writing() as connection:
            connection.execute(insert(publications), _row(publication))

    def publications(self, task: str) -> list[PublicationRecord]:
        """What is kept of a task's publications, oldest first."""
        with transaction(self._database) as connection:
            query = select(publications).where(publications.c.task == task)
            rows = connection.execute(query.order_by(publications.c.version))
            return [PublicationRecord(**row) for row in rows.mappings()]

    def forget_publications(self, task: str, versions_: Sequence[int]) -> None:
        """Forget publications whose files go."""
        with self._writing() as connection:
            connection.execute(
                delete(publications).where(
                    publications.c.task == task, publications.c.version.in_(versions_)
                )
            )

    def set_compaction(self, compaction: CompactionRecord, event: Event | None) -> None:
        """Record how far payloads are dropped, or that they will be."""
        with self._writing() as connection:
            row = _row(compaction)
            new = upsert(connection.dialect.name, compactions)
            changes = {name: new.excluded[name] for name in row if name != "task"}
            connection.execute(_on_conflict(new, ("task",), changes), [row])
            _add_events(connection, [event] if event is not None else [])

    def drop_payloads(self, task: str, *, first: int, last: int) -> None:
        """Drop the payloads of merges from one version to another, and record that it is done."""
        merged = (updates.c.task == task) & updates.c.merged_in.between(first, last)
        with self._writing() as connection:
            connection.execute(update(updates).where(merged).values(payload=b""))
            mine = compactions.c.task == task
            connection.execute(update(compactions).where(mine).values(swept_to=last))

    def check(self) -> None:
        """Write something that changes nothing; raises LedgerUnavailableError if that fails."""
        with transaction(self._database) as connection:
            connection.execute(update(schema_version).values(version=schema_version.c.version))

    def add_event(self, event: Event) -> None:
        """Record one event."""
        with self._writing() as connection:
            _add_events(connection, [event])

    def tidy(self, now: float) -> None:
        """Forget old events, and the throughput of more than ten minutes ago.

        What lies as far in the future was counted under a clock that has been set back since.
        """
        with self._writing() as connection:
            newest = connection.scalar(select(func.max(events.c.id))) or 0
            connection.execute(delete(events).where(events.c.id <= newest - KEPT_EVENTS))
            kept = tallies.c.key.between(int(now) - KEPT_SECONDS, int(now) + KEPT_SECONDS)
            connection.execute(delete(tallies).where(tallies.c.kind == "second", not_(kept)))
            connection.execute(delete(commits).where(commits.c.at < now - KEPT_SECONDS))

    def heads(self) -> dict[str, Head]:
        """Every task as far as it must be known to judge its updates."""
        mine = versions.c.task == tasks.c.task
        newest = select(func.max(versions.c.version)).where(mine).scalar_subquery()
        lately = select(tallies.c.task, tallies.c.key, tallies.c.value).where(
            tallies.c.kind == "norm", tallies.c.value > 0
        )
        norms: dict[str, dict[int, int]] = {}
        with transaction(self._database) as connection:
            for row in connection.execute(lately):
                norms.setdefault(row.task, {})[row.key] = row.value
            query = select(tasks.c.task, tasks.c.training, newest.label("newest"))
            return {
                row.task: Head(row.newest, row.training, norms.get(row.task, {}))
                for row in connection.execute(query)
            }


def _norms_of(task: str) -> ColumnElement[bool]:
    return (tallies.c.task == task) & (tallies.c.kind == "norm")


def _row(
    record: TaskRecord | VersionRecord | PublicationRecord | CompactionRecord,
) -> dict[str, Any]:
    return {name: getattr(record, name) for name in record.__dataclass_fields__}


def _highest_sequences(
    connection: Connection, keys: Sequence[UpdateKey]
) -> dict[tuple[str, str], int]:
    marks = {}
    for task in {key.task for key in keys}:
        query = select(participants.c.device, participants.c.last_sequence).where(
            participants.c.task == task,
            participants.c.device.in_({key.device for key in keys if key.task == task}),
        )
        marks.update({(task, row.device): row.last_sequence for row in connection.execute(query)})
    return marks


def _decisions(connection: Connection, keys: Sequence[UpdateKey]) -> dict[UpdateKey, Decision]:
    marks = _highest_sequences(connection, keys)
    # Sequences mostly count up, so one look at the devices settles nearly every key.
    seen = [key for key in keys if key.sequence <= marks.get(key[:2], 0)]
    found = ((key, _decision(connection, key)) for key in seen)
    return {key: decision for key, decision in found if decision is not None}


def _take_turns(connection: Connection, intake: Intake) -> None:
    """Wait for other processes that decide on the same devices, and see what they decided."""
    if connection.dialect.name != "postgresql":
        return
    keys = [new.key for new in intake.updates] + [r.key for r in intake.rejections]
    strange = {key.task for key in keys} - intake.known_tasks
    take_turns(connection, [*(f"{key.task}/{key.device}" for key in keys), *strange])
    if _decisions(connection, [key for key in keys if key.task in intake.known_tasks]):
        raise DecidedMeanwhileError("an update was decided before")
    made = select(tasks.c.task).where(tasks.c.task.in_(strange))
    if strange and connection.execute(made).first() is not None:
        raise DecidedMeanwhileError("a task was made meanwhile")
    for task, changes in sorted(intake.norms.items()):
        if sum(changes.values()) < 0:
            _forget_once(connection, task, changes)


def _forget_once(connection: Connection, task: str, changes: Mapping[int, int]) -> None:
    """Let one process halve the histogram of norms when it is full, and no other as well."""
    take_turns(connection, [f"norms of {task}"])
    total = connection.scalar(select(func.sum(tallies.c.value)).where(_norms_of(task))) or 0
    if total + sum(changes.values()) < WINDOW // 2:
        raise DecidedMeanwhileError("the norms were halved or forgotten meanwhile")


def _decision(connection: Connection, key: UpdateKey) -> Decision | None:
    if connection.execute(_FIND_UPDATE, key._asdict()).first() is not None:
        return Decision(outcome=Outcome.ACCEPTED)
    reason = connection.execute(_FIND_REJECTION, key._asdict()).scalar()
    return None if reason is None else Decision(outcome=Outcome.REJECTED, reason=Refusal(reason))


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


def _insert_versions(connection: Connection, merges: Sequence[MergeRecord]) -> None:
    connection.execute(_NEW_VERSION, [_row(merge.version) for merge in merges])
    taken = [
        {"member": member, "version": merge.version.version}
        for merge in merges
        for member in merge.members
    ]
    if taken and connection.execute(_MARK_MERGED, taken).rowcount != len(taken):
        last = merges[-1].version.version
        raise RuntimeError(f"the versions up to {last} would take an update twice")
    ages: Counter[tuple[str, int]] = Counter()
    for merge in merges:
        for age, count in merge.staleness.items():
            ages[merge.version.task, age] += count
    _add_tallies(
        connection,
        [
            {"task": task, "kind": "staleness", "key": age, "value": count}
            for (task, age), count in sorted(ages.items())
        ],
    )


def _add_to_totals(connection: Connection, intake: Intake) -> None:
    dialect = connection.dialect.name
    _add_tallies(connection, tally_rows(intake))
    if rows := participant_rows(intake):
        connection.execute(_adding_participants(dialect), rows)
    if rows := quality_rows(intake):
        connection.execute(_adding_quality(dialect), rows)


def _add_tallies(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    if rows:
        connection.execute(_adding_tallies(connection.dialect.name), rows)


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


def _add_events(connection: Connection, added: Sequence[Event]) -> None:
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
