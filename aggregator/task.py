"""One task as the engine holds it: how it is steered, the current version, and what waits."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Self

from aggregator.blobs import Blobs
from aggregator.fold import contribution, rebuild
from aggregator.ledger import Ledger, TaskRecord, VersionRecord
from aggregator.merging import Contribution, ServerState, merge
from aggregator.norms import Norms
from aggregator.orders import Orders
from aggregator.snapshots import encode_snapshot, load_snapshot
from wire.manifest import Manifest, ParameterSpec
from wire.messages import Announcement

__all__ = ["Task"]


class Task:
    """A task's state in memory. Everything in it can be had again from ledger and blobs.

    Args:
        record: how it is steered.
        newest: its newest version.
        state: that version's parameters.
        waiting: accepted updates that no merge has taken, in the order of their ids.
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
        waiting: Iterable[Contribution] = (),
        norms: Norms | None = None,
        now: float,
    ) -> None:
        self.manifest = Manifest.from_json(record.manifest)
        self.record, self.orders = record, Orders.of(record)
        self.newest = newest
        self.norms = norms or Norms()
        self._state = state
        self._waiting = list(waiting)
        self._waiting_since = now
        self.retry_at: float | None = None
        self.announced_at = float("-inf")
        self.announced: Announcement | None = None

    @classmethod
    def restore(cls, record: TaskRecord, *, ledger: Ledger, blobs: Blobs, now: float) -> Self:
        """The task as a former life of the process left it.

        Raises:
            FoldError: no snapshot is left to start from.
        """
        specs = Manifest.from_json(record.manifest).federated
        newest = ledger.newest_version(record.task)
        parameters = load_snapshot(blobs, newest.sha256, specs)
        if parameters is not None:
            state = ServerState(newest.version, parameters)
        else:
            state = rebuild(ledger, blobs, specs, task=record.task, version=newest.version)
            blobs.put(encode_snapshot(state.parameters))
        waiting = [contribution(update, specs) for update in ledger.members(record.task, None)]
        return cls(
            record=record,
            newest=newest,
            state=state,
            waiting=waiting,
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
    def pending(self) -> int:
        """Accepted updates that wait for a merge."""
        return len(self._waiting)

    def steer(self, record: TaskRecord, orders: Orders) -> None:
        """Go on under new orders, which are those of the record."""
        self.record, self.orders = record, orders

    def add(self, contributions: Sequence[Contribution], *, now: float) -> None:
        """Let durable updates wait for their merge."""
        if contributions and not self._waiting:
            self._waiting_since = now
        self._waiting.extend(contributions)

    def due_at(self) -> float | None:
        """When the next merge should be: monotonic seconds, or None if nothing waits for one."""
        if self.record.paused or not self._waiting:
            return None
        full = len(self._waiting) >= self.orders.rule.buffer_size
        due = float("-inf") if full else self._waiting_since + self.orders.rule.max_wait_s
        return due if self.retry_at is None else max(due, self.retry_at)

    def merge(self, ledger: Ledger, blobs: Blobs, *, at: float, now: float) -> None:
        """Fold the oldest waiting updates, at most a buffer, into the next version, durably.

        The snapshot is on the disk before the version's row is written, and that row and the
        membership of the updates are one transaction. Whatever is raised, and wherever the process
        dies, either the version exists with its updates or nothing happened.

        Args:
            ledger: where the version is recorded.
            blobs: where its snapshot goes.
            at: seconds since 1970.
            now: monotonic seconds.
        """
        batch = self._waiting[: self.orders.rule.buffer_size]
        state = merge(self._state, batch, self.orders.rule)
        snapshot = encode_snapshot(state.parameters)
        staleness = Counter(self.version - update.base_version for update in batch)
        version = VersionRecord(
            task=self.name,
            version=state.version,
            sha256=blobs.put(snapshot),
            size_bytes=len(snapshot),
            rule=self.orders.rule.to_dict(),
            created_at=at,
            updates=len(batch),
            staleness_total=sum(age * count for age, count in staleness.items()),
        )
        ledger.add_version(version, [update.id for update in batch], staleness)
        self._state, self.newest = state, version
        del self._waiting[: len(batch)]
        self._waiting_since = now
        self.retry_at = None

    def announcement(self) -> Announcement:
        """What devices should know now."""
        return Announcement(
            task=self.name,
            version=self.version,
            sha256=self.newest.sha256,
            size_bytes=self.newest.size_bytes,
            paused=self.record.paused,
            training=self.orders.training,
            codec=self.orders.codec,
        )
