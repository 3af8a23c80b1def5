"""The ledger: what is written to it. What the fold reads back is in ``past``."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import (
    Connection,
    Engine,
    bindparam,
    delete,
    func,
    insert,
    not_,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError

from aggregator.ledger.additions import add_events, add_intake, add_tallies
from aggregator.ledger.database import transaction, upsert
from aggregator.ledger.decisions import decide_in_turn, decisions, norms_of
from aggregator.ledger.intake import Intake
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
    events,
    publications,
    schema_version,
    tallies,
    tasks,
    updates,
    versions,
)
from aggregator.ledger.strangers import meet_again
from aggregator.ledger.term import begin_term, keep_term
from aggregator.ledger.turns import DecidedMeanwhileError, take_turns

__all__ = ["Ledger"]

KEPT_EVENTS = 10_000
KEPT_SECONDS = 600

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
            add_events(connection, [event])

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
                connection.execute(delete(tallies).where(norms_of(task.task)))
            add_events(connection, [event])

    def norms(self, task: str) -> dict[int, int]:
        """The histogram of the norms accepted lately: counts above 0 by bucket."""
        with transaction(self._database) as connection:
            query = select(tallies.c.key, tallies.c.value).where(norms_of(task))
            rows = connection.execute(query.where(tallies.c.value > 0))
            return {row.key: row.value for row in rows}

    def decisions(self, keys: Sequence[UpdateKey]) -> dict[UpdateKey, Decision]:
        """What was decided before on these updates.

        Keys that are new are left out, and those whose task does not exist.
        """
        with transaction(self._database) as connection:
            return decisions(connection, keys)

    def take_in(self, intake: Intake) -> list[int]:
        """Commit a batch.

        Returns:
            The ids of ``intake.updates``, in their order.

        Raises:
            DecidedMeanwhileError: an update was decided before, or a task was made.
        """
        try:
            with transaction(self._database) as connection:
                decide_in_turn(connection, intake)
                return add_intake(connection, intake)
        except IntegrityError as error:
            raise DecidedMeanwhileError("an update was decided before") from error

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
            add_events(connection, [event] if event is not None else [])

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
            connection.execute(
                new.on_conflict_do_update(index_elements=["task"], set_=changes), [row]
            )
            add_events(connection, [event] if event is not None else [])

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
            add_events(connection, [event])

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


def _row(
    record: TaskRecord | VersionRecord | PublicationRecord | CompactionRecord,
) -> dict[str, Any]:
    return {name: getattr(record, name) for name in record.__dataclass_fields__}


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
    add_tallies(
        connection,
        [
            {"task": task, "kind": "staleness", "key": age, "value": count}
            for (task, age), count in sorted(ages.items())
        ],
    )
