"""One task as the engine holds it: how it is steered, the current version, and what waits."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Self

from aggregator.blobs import Blobs
from aggregator.digest import next_digest, origin_digest
from aggregator.effort import Effort
from aggregator.fold import Fold, Folded, contribution
from aggregator.ledger import (
    Ancestry,
    Event,
    Ledger,
    MergeRecord,
    Origin,
    PublicationRecord,
    TaskRecord,
    VersionRecord,
    ancestry_of,
)
from aggregator.merging import Contribution, ServerState, Step, advance, overwritten, restore
from aggregator.norms import Norms
from aggregator.orders import Orders
from aggregator.publication import publish
from aggregator.snapshots import encode_snapshot
from wire.manifest import Manifest, ParameterSpec
from wire.messages import Announcement

__all__ = ["Task"]


class Task:
    """A task's state in memory. Everything in it can be had again from ledger and blobs.

    Args:
        record: how it is steered.
        newest: its newest version.
        state: that version's parameters; merges write into its arrays.
        unsaved: how many updates were merged since its newest snapshot.
        waiting: accepted updates that no merge has taken, in the order of their ids.
        published: its newest publication, whose file is there.
        origins: its versions that no merge made.
        norms: those of the updates accepted lately.
        now: monotonic seconds; what waits is waiting since now.

    Attributes:
        norms: as given; whoever accepts updates puts the later value here.
    """

    def __init__(
        self,
        *,
        record: TaskRecord,
        newest: VersionRecord,
        state: ServerState,
        unsaved: int = 0,
        waiting: Iterable[Contribution] = (),
        published: PublicationRecord | None = None,
        origins: Mapping[int, Origin] | None = None,
        norms: Norms | None = None,
        now: float,
    ) -> None:
        self.manifest = Manifest.from_json(record.manifest)
        self.record, self.orders = record, Orders.of(record)
        self.newest, self.published = newest, published
        self.norms = norms or Norms()
        self._state, self.unsaved = state, unsaved
        self._origins = dict(origins or {})
        self._waiting = list(waiting)
        self._waiting_since = now
        self.retry_at: float | None = None
        self.announced_at = float("-inf")
        self.announced: Announcement | None = None
        self.saving, self.publishing = Effort(), Effort()
        self.save_again_at = float("-inf")

    @classmethod
    def restore(cls, record: TaskRecord, *, ledger: Ledger, blobs: Blobs, now: float) -> Self:
        """The task as a former life of the process left it.

        Raises:
            FoldError: no snapshot is left to start from, or what comes out is not what was.
        """
        specs = Manifest.from_json(record.manifest).federated
        newest = ledger.newest_version(record.task)
        folded = Fold(ledger, record.task, specs).rebuild(blobs, newest.version)
        waiting = [contribution(update, specs) for update in ledger.members(record.task, None)]
        published = next(reversed(ledger.publications(record.task)), None)
        if published is not None and not blobs.intact(published.sha256):
            ledger.forget_publications(record.task, [published.version])
            published = None
        return cls(
            record=record,
            newest=newest,
            state=folded.state,
            unsaved=folded.replayed,
            waiting=waiting,
            published=published,
            origins=ledger.origins(record.task),
            norms=Norms(ledger.norms(record.task)),
            now=now,
        )

    @property
    def name(self) -> str:
        """The task's 32 hex characters."""
        return self.record.task

    @property
    def specs(self) -> Sequence[ParameterSpec]:
        """The federated parameters."""
        return self.manifest.federated

    @property
    def interval_s(self) -> float:
        """Least time between two updates of one device."""
        return self.orders.training.interval_s

    @property
    def version(self) -> int:
        """The current version."""
        return self._state.version

    @property
    def state(self) -> ServerState:
        """The current version's parameters."""
        return self._state

    @property
    def origin(self) -> Origin | None:
        """Where the current version comes from; None if a merge made it."""
        return self._origins.get(self.version)

    @property
    def ancestry(self) -> Ancestry:
        """What the current version is made of."""
        return ancestry_of(self._origins, self.version)

    @property
    def pending(self) -> int:
        """Accepted updates that wait for a merge."""
        return len(self._waiting)

    @property
    def waiting_ids(self) -> set[int]:
        """Their ids in the ledger."""
        return {update.id for update in self._waiting}

    def steer(self, record: TaskRecord, orders: Orders) -> None:
        """Go on under new orders, which are those of the record."""
        self.record, self.orders = record, orders

    def add(self, contributions: Sequence[Contribution], *, now: float) -> None:
        """Let durable updates wait for their merge; those given are in the order of their ids."""
        if contributions and not self._waiting:
            self._waiting_since = now
        late = bool(contributions and self._waiting) and contributions[0].id < self._waiting[-1].id
        self._waiting.extend(contributions)
        if late:
            # The fold takes the members of a merge in the order of their ids, whenever they came.
            self._waiting.sort(key=lambda update: update.id)

    def due_at(self) -> float | None:
        """When the next merge should be: monotonic seconds, or None if nothing waits for one."""
        if self.record.paused or not self._waiting:
            return None
        full = len(self._waiting) >= self.orders.rule.buffer_size
        due = float("-inf") if full else self._waiting_since + self.orders.rule.max_wait_s
        return due if self.retry_at is None else max(due, self.retry_at)

    def merge(self, ledger: Ledger, *, at: float, now: float, most: int = 1) -> int:
        """Fold the oldest waiting updates, at most a buffer, into the next version, durably.

        And so on with further full buffers. The versions' rows and the membership of the updates
        are one transaction: a commit may take longer than a merge. Whatever is raised, and wherever
        the process dies, either the versions exist with their updates or nothing happened.

        Args:
            ledger: where the versions are recorded.
            at: seconds since 1970.
            now: monotonic seconds.
            most: no further buffer once so many updates are taken.

        Returns:
            How many versions were made.
        """
        rule = self.orders.rule
        size, merges = rule.buffer_size, list[MergeRecord]()
        state, newest, taken = self._state, self.newest, 0
        undo: list[tuple[ServerState, Step]] = []
        try:
            while True:
                batch = self._waiting[taken : taken + size]
                step, merge = self._next(ledger, state, newest, batch, at=at)
                merges.append(merge)
                newest, taken = merge.version, taken + len(batch)
                # What the ledger is asked about a device, it must know of the merge before.
                alone = rule.needs_previous or rule.needs_device_updates
                if alone or taken >= most or len(self._waiting) - taken < size:
                    break
                undo.append((state, overwritten(state, step)))
                state = advance(state, step)
            ledger.add_merges(merges)
        except BaseException:
            for before, values in reversed(undo):
                restore(before, values)
            raise
        self._state, self.newest = advance(state, step), newest
        self.unsaved += taken
        del self._waiting[:taken]
        self._waiting_since = now
        self.retry_at = None
        return len(merges)

    def _next(
        self,
        ledger: Ledger,
        state: ServerState,
        newest: VersionRecord,
        batch: Sequence[Contribution],
        *,
        at: float,
    ) -> tuple[Step, MergeRecord]:
        """What a merge changes, and what is recorded of it."""
        rule = self.orders.rule
        step = Fold(ledger, self.name, self.specs).step(state, batch, rule, self.ancestry)
        staleness = Counter(state.version - update.base_version for update in batch)
        version = VersionRecord(
            task=self.name,
            version=state.version + 1,
            digest=next_digest(newest.digest, rule.to_dict(), step),
            rule=rule.to_dict(),
            created_at=at,
            updates=len(batch),
            staleness_total=sum(age * count for age, count in staleness.items()),
        )
        return step, MergeRecord(version, [update.id for update in batch], staleness)

    def save(self, ledger: Ledger, blobs: Blobs) -> None:
        """Make a snapshot of the current version.

        The blob is on the disk before the row that names it.

        Raises:
            LedgerUnavailableError: the database refuses.
            OSError: the snapshot cannot be written.
        """
        snapshot = encode_snapshot(self._state)
        ledger.add_snapshot(self.name, self.version, blobs.put(snapshot), len(snapshot))
        self.unsaved = 0

    def go_on_from(
        self,
        folded: Folded,
        origin: Origin,
        ledger: Ledger,
        blobs: Blobs,
        *,
        event: Event,
        left_out: Sequence[int] = (),
    ) -> None:
        """Make what was folded the next version, durably; nothing changes if that fails.

        Args:
            folded: its parameters and memory, and the digest that they have; taken over.
            origin: where it comes from.
            ledger: where the version is recorded.
            blobs: where its snapshot goes, before the row that names it.
            event: what the operator shall know of it.
            left_out: ids of waiting updates that shall never be merged.

        Raises:
            LedgerUnavailableError: the database refuses.
            OSError: the snapshot cannot be written.
        """
        state = replace(folded.state, version=self.version + 1)
        snapshot = encode_snapshot(state)
        version = VersionRecord(
            task=self.name,
            version=state.version,
            digest=origin_digest(folded.digest, origin),
            sha256=blobs.put(snapshot),
            size_bytes=len(snapshot),
            rule=self.orders.rule.to_dict(),
            created_at=event.at,
            origin=origin.to_dict(),
        )
        ledger.add_version(version, left_out, {}, event)
        self._state, self.newest, self.unsaved = state, version, 0
        self._origins[version.version] = origin
        self._waiting = [update for update in self._waiting if update.id not in set(left_out)]

    def publish(self, ledger: Ledger, blobs: Blobs, *, at: float) -> None:
        """Publish the current version, durably, unless it is published.

        Args:
            ledger: where the publication is recorded.
            blobs: where its file goes.
            at: seconds since 1970.

        Raises:
            LedgerUnavailableError: the database refuses; nothing changes.
            OSError: the file cannot be written; nothing changes.
        """
        if self.published is not None and self.published.version == self.version:
            return
        record = publish(
            self._state,
            self.specs,
            blobs,
            task=self.name,
            exponents=self.published.exponents if self.published else {},
            at=at,
        )
        ledger.add_publication(record)
        self.published = record

    @property
    def is_announced(self) -> bool:
        """Whether devices were told all there is to know."""
        known = self.announced is not None and self.announced.version == self.version
        return known and self.announced == self.announcement()

    def announcement(self) -> Announcement | None:
        """What devices should know of the newest publication; None before the first."""
        if self.published is None:
            return None
        return Announcement(
            task=self.name,
            version=self.published.version,
            sha256=self.published.sha256,
            size_bytes=self.published.size_bytes,
            paused=self.record.paused,
            training=self.orders.training,
            codec=self.orders.codec,
        )
