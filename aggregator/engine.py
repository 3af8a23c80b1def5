"""The single writer of versions: updates and commands in; ledger, snapshots, announcements out.

Updates come as messages that it takes in itself, or out of the ledger where other processes have
taken them in.

It has no thread, no socket and no clock of its own: whoever drives it hands it messages and calls
``tick`` when ``next_due`` says so. The service drives it from one thread, a simulation from a
simulated clock.

The order of things is what makes it exactly once. A batch is committed before it is acknowledged
and answered; a version and the updates that it took are one transaction; memory changes last. So an
engine may be lost after any step: the next one starts from the ledger, and the broker and the
devices send again what was not acknowledged.
"""

import logging
import math
from collections.abc import Callable, Collection, Mapping, Sequence

from aggregator.acceptance import Acceptance, Publish
from aggregator.admission import AdmissionPolicy
from aggregator.blobs import Blobs
from aggregator.clock import Clock
from aggregator.compaction import compact
from aggregator.fold import contribution
from aggregator.full import describe
from aggregator.ledger import (
    Event,
    Ledger,
    LedgerUnavailableError,
    SupersededError,
    TaskRecord,
    VersionRecord,
)
from aggregator.lineage import promote, roll_back
from aggregator.merging import Contribution, Rule, ServerState
from aggregator.metrics import Instruments
from aggregator.norms import Norms
from aggregator.orders import Orders, Steering
from aggregator.reception import Inbound
from aggregator.retention import Retention, delete_unused, forget_publications, prune
from aggregator.snapshots import read_snapshot
from aggregator.task import Task
from wire import topics
from wire.bundle import Bundle
from wire.manifest import Manifest, task_id

__all__ = ["Engine", "Publish", "TaskError"]

TIDY_EVERY_S = 60.0
COMPACT_EVERY_S = 600.0
RETRY_AFTER_S = 1.0
IN_HAND = 1_000
"""How many updates to have in memory beyond a buffer, where others take them in."""
LARGEST_SHARE = 0.05
"""Of the engine's time that goes into publications of a task, and into its snapshots."""
MERGED_TOGETHER = 500
"""How many updates the merges of one transaction take, unless one merge takes more."""
LATEST_SNAPSHOT = 4
"""Times ``snapshot_every``: then there is one whatever it costs, or a start would take long."""

_log = logging.getLogger(__name__)


class TaskError(Exception):
    """A task cannot be made; the message says what is missing."""


class Engine:
    """The aggregator's core.

    Args:
        ledger: the durable record; only this engine makes tasks and versions in it.
        blobs: snapshots and bundles.
        publish: sends receipts and announcements.
        clock: what time it is.
        instruments: what is counted.
        admission: bounds that every update must keep to.
        retention: which snapshots are kept.
        rule: the merge rule of new tasks.
        enrolled: the devices that may take part, asked once a batch; None for all.
        announce_interval_s: least time between two announcements of a task that only the model's
            progress causes; steering is announced at once.
        merge_for_s: after so long with one task ``tick`` sees to other things, though more merges
            are due. Without end, whoever hands in messages waits for their merges.
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        blobs: Blobs,
        publish: Publish,
        clock: Clock,
        instruments: Instruments,
        admission: AdmissionPolicy,
        retention: Retention,
        rule: Rule,
        enrolled: Callable[[], Collection[str] | None] = lambda: None,
        announce_interval_s: float = 0.0,
        merge_for_s: float = math.inf,
    ) -> None:
        self._ledger, self._blobs, self._publish = ledger, blobs, publish
        self._clock, self._instruments = clock, instruments
        self._admission, self._retention, self._rule = admission, retention, rule
        self._acceptance = Acceptance(
            ledger=ledger,
            publish=publish,
            clock=clock,
            instruments=instruments,
            policy=admission,
            enrolled=enrolled,
        )
        self._announce_interval_s, self._merge_for_s = announce_interval_s, merge_for_s
        self._tasks: dict[str, Task] = {}
        self._troubles: dict[tuple[str, str], str] = {}
        self._tidy_at = clock.monotonic() + TIDY_EVERY_S
        self._compact_at = clock.monotonic()

    @property
    def problem(self) -> str | None:
        """What fails at present and is tried again, or None; from any thread."""
        return next(iter(self._troubles.copy().values()), None)

    @property
    def tasks(self) -> Mapping[str, Task]:
        """The tasks by name; read only."""
        return self._tasks

    def start(self) -> None:
        """Take up every task where the ledger says it is, and announce it.

        Raises:
            LedgerUnavailableError: the database refuses.
            FoldError: a task has lost every snapshot.
        """
        now = self._clock.monotonic()
        for record in self._ledger.tasks():
            task = Task.restore(record, ledger=self._ledger, blobs=self._blobs, now=now)
            self._tasks[task.name] = task
            self._prune(task)
            self._show(task)
            _log.info(
                "task %s is at version %d; %d updates wait", task.name, task.version, task.pending
            )
        self._ledger.add_event(
            Event(at=self._clock.time(), kind="started", detail=f"{len(self._tasks)} tasks")
        )
        self.announce_all()
        self.tick()

    def ingest(self, messages: Sequence[Inbound]) -> None:
        """Judge a batch, make it durable, and only then acknowledge and answer it.

        Raises:
            LedgerUnavailableError: the database refuses. Nothing was acknowledged, answered or
                changed; hand in the same batch again.
        """
        for name, taken in self._acceptance.take(messages, self._tasks).items():
            self._tasks[name].norms = taken.norms
            self._let_wait(self._tasks[name], taken.contributions)
        self.tick()

    def collect(self) -> None:
        """Let the oldest updates wait that other processes have taken in; then see to ``tick``."""
        try:
            for task in self._tasks.values():
                limit = task.orders.rule.buffer_size + IN_HAND
                if task.pending < limit:
                    known = task.waiting_ids
                    found = self._ledger.waiting(task.name, known=known, limit=limit)
                    self._let_wait(task, [contribution(update, task.specs) for update in found])
        except LedgerUnavailableError as error:
            _log.error("updates that wait will be looked for again: %s", error)
            self._instruments.failures.labels("collect").inc()

    def tick(self) -> None:
        """Do what is due: merges, announcements, tidying. What fails for now is tried again."""
        now = self._clock.monotonic()
        for task in self._tasks.values():
            until = self._clock.monotonic() + self._merge_for_s
            while (due := task.due_at()) is not None and due <= now and self._merge(task):
                if self._clock.monotonic() >= until:
                    break
            if self._snapshot_due(task) <= now:
                self._save(task)
            if self._announcement_due(task) <= now:
                self._announce(task)
        if self._tidy_at <= now:
            self._tidy_at = now + TIDY_EVERY_S
            self._tidy()
            self._compact(now)

    def next_due(self) -> float:
        """When ``tick`` should be called next, in monotonic seconds; perhaps past."""
        merges = [due for task in self._tasks.values() if (due := task.due_at()) is not None]
        announcements = [self._announcement_due(task) for task in self._tasks.values()]
        snapshots = [self._snapshot_due(task) for task in self._tasks.values()]
        return min([self._tidy_at, *merges, *snapshots, *announcements])

    def create_task(self, raw_manifest: bytes) -> str:
        """Make a task of a manifest whose files are blobs; a known one changes nothing.

        Returns:
            The task's name.

        Raises:
            ManifestError: the manifest is not valid.
            BundleError: its initial parameters do not fit it.
            TaskError: files are missing.
            LedgerUnavailableError: the database refuses; nothing was made.
        """
        manifest, name = Manifest.from_json(raw_manifest), task_id(raw_manifest)
        if name in self._tasks:
            return name
        self._check_files(manifest)
        initial = manifest.file(manifest.initial)
        state = read_snapshot(self._blobs.path(initial.sha256), manifest.federated, 0)
        now = self._clock.time()
        record = TaskRecord(
            task=name,
            manifest=raw_manifest,
            created_at=now,
            paused=False,
            training=manifest.training.to_dict(),
            codec=manifest.codec.to_dict(),
            rule=self._rule.to_dict(),
        )
        first = VersionRecord(
            task=name,
            version=0,
            digest=initial.sha256,
            sha256=initial.sha256,
            size_bytes=initial.size_bytes,
            rule=self._rule.to_dict(),
            created_at=now,
        )
        event = Event(at=now, kind="task-created", task=name, detail=manifest.name)
        self._ledger.create_task(record, first, event)
        self._add_task(record, first, state)
        return name

    def register(self, bundle: Bundle) -> str:
        """Make a task of a bundle on this machine's disk; see ``create_task``."""
        for entry in bundle.manifest.files:
            self._blobs.put_file(bundle.path(entry), entry.sha256)
        return self.create_task(bundle.raw_manifest)

    def steer(self, name: str, steering: Steering) -> None:
        """Change how a task is run, durably, and tell the devices at once.

        Raises:
            KeyError: no such task.
            WireError: a policy or the rule would not be valid; nothing changes.
            LedgerUnavailableError: the database refuses; nothing changes.
        """
        task = self._tasks[name]
        record = steering.applied(task.record)
        orders = Orders.of(record)
        event = Event(at=self._clock.time(), kind="steered", task=name, detail=steering.describe())
        # What was usual under another learning rate or codec would refuse a whole fleet.
        trained_otherwise = (orders.training, orders.codec) != (
            task.orders.training,
            task.orders.codec,
        )
        self._ledger.steer(record, event, forget_norms=trained_otherwise)
        if trained_otherwise:
            task.norms = Norms()
        task.steer(record, orders)
        self._show(task)
        self._announce(task)
        self.tick()

    def rollback(self, name: str, version: int) -> int:
        """Make the next version with the parameters of an older one; see ``lineage.roll_back``.

        Nothing else is done meanwhile.

        Raises:
            KeyError: no such task.
        """
        task, at = self._tasks[name], self._clock.time()
        new = roll_back(task, version, ledger=self._ledger, blobs=self._blobs, at=at)
        self._show_new_way(task)
        return new

    def promote(self, name: str, lineage: int) -> int:
        """Make a lineage the next version; see ``lineage.promote``.

        Nothing else is done meanwhile.

        Raises:
            KeyError: no such task, or no such lineage.
        """
        task, record = self._tasks[name], self._ledger.lineage(name, lineage)
        if record is None:
            raise KeyError(lineage)
        at = self._clock.time()
        new = promote(task, record, ledger=self._ledger, blobs=self._blobs, at=at)
        self._show_new_way(task)
        return new

    def forget_lineage(self, name: str, lineage: int) -> None:
        """Forget a lineage and remove its snapshot; no error if there is none.

        Versions that it was promoted to stay.
        """
        record = self._ledger.lineage(name, lineage)
        if record is not None:
            self._ledger.forget_lineage(name, lineage)
            delete_unused(self._ledger, self._blobs, record.sha256)

    def save_all(self) -> None:
        """Make a snapshot of every task, so that the next start replays nothing."""
        try:
            for task in self._tasks.values():
                if task.unsaved:
                    self._save(task)
        except SupersededError as error:
            _log.warning("no snapshots: %s", error)

    def announce_all(self) -> None:
        """Announce every task again, for a broker that may have forgotten."""
        for task in self._tasks.values():
            self._announce(task)

    def _check_files(self, manifest: Manifest) -> None:
        missing = [
            f"{entry.path} ({entry.sha256})"
            for entry in manifest.files
            if not self._blobs.has(entry.sha256)
            or self._blobs.size_bytes(entry.sha256) != entry.size_bytes
        ]
        if missing:
            raise TaskError(
                f"upload the bundle's files to /v1/blobs first; missing: {', '.join(missing)}"
            )

    def _add_task(self, record: TaskRecord, first: VersionRecord, state: ServerState) -> None:
        task = Task(record=record, newest=first, state=state, now=self._clock.monotonic())
        self._tasks[task.name] = task
        _log.info("task %s (%s) is new", task.name, task.manifest.name)
        self._show(task)
        self._announce(task)

    def _let_wait(self, task: Task, contributions: Sequence[Contribution]) -> None:
        task.add(contributions, now=self._clock.monotonic())
        self._show(task)

    def _merge(self, task: Task) -> bool:
        now = self._clock.monotonic()
        try:
            every = self._retention.snapshot_every
            most = min(MERGED_TOGETHER, every - task.unsaved % every)
            with self._instruments.merge_s.time():
                made = task.merge(self._ledger, at=self._clock.time(), now=now, most=most)
            self._instruments.merges.labels(task.name).inc(made)
        except (LedgerUnavailableError, OSError) as error:
            self._failed("merge", task, error)
            task.retry_at = now + RETRY_AFTER_S
            return False
        self._went_well("merge", task)
        self._show(task)
        if self._snapshot_due(task) <= self._clock.monotonic():
            self._save(task)
        return True

    def _failed(self, what: str, task: Task, error: Exception) -> None:
        said = f"{what} of task {task.name}: {describe(error)}"
        _log.error("%s", said)
        self._instruments.failures.labels(what).inc()
        self._troubles[what, task.name] = said

    def _went_well(self, what: str, task: Task) -> None:
        self._troubles.pop((what, task.name), None)

    def _snapshot_due(self, task: Task) -> float:
        every = self._retention.snapshot_every
        if task.unsaved < every:
            return float("inf")
        late = task.unsaved >= every * LATEST_SNAPSHOT
        return max(
            float("-inf") if late else task.saving.rested_at(LARGEST_SHARE), task.save_again_at
        )

    def _save(self, task: Task) -> None:
        try:
            with task.saving.timed(self._clock):
                task.save(self._ledger, self._blobs)
        except (LedgerUnavailableError, OSError) as error:
            # The ledger has everything; it only takes longer to start from it.
            self._failed("snapshot", task, error)
            task.save_again_at = self._clock.monotonic() + RETRY_AFTER_S
        else:
            self._went_well("snapshot", task)
            self._prune(task)

    def _prune(self, task: Task) -> None:
        try:
            prune(self._ledger, self._blobs, self._retention, task=task.name)
        except (LedgerUnavailableError, OSError) as error:
            _log.error("old snapshots of task %s stay for now: %s", task.name, error)
            self._instruments.failures.labels("prune").inc()

    def _show_new_way(self, task: Task) -> None:
        self._prune(task)
        self._show(task)
        self._announce(task)
        self.tick()

    def _announcement_due(self, task: Task) -> float:
        if task.is_announced:
            return float("inf")
        rested_at = task.publishing.rested_at(LARGEST_SHARE)
        return max(task.announced_at + self._announce_interval_s, rested_at)

    def _announce(self, task: Task) -> None:
        """Publish the current version and tell the devices, of the one before if that fails."""
        task.announced_at = now = self._clock.monotonic()
        try:
            with task.publishing.timed(self._clock):
                task.publish(self._ledger, self._blobs, at=self._clock.time())
            forget_publications(self._ledger, self._blobs, self._retention, task=task.name)
        except (LedgerUnavailableError, OSError) as error:
            self._failed("publish", task, error)
            task.announced_at = now + RETRY_AFTER_S - self._announce_interval_s
        else:
            self._went_well("publish", task)
        task.announced = task.announcement()
        if task.announced is not None:
            self._publish(topics.announcement(task.name), task.announced.encode(), retain=True)

    def _tidy(self) -> None:
        try:
            self._ledger.tidy(self._clock.time())
        except LedgerUnavailableError as error:
            _log.error("tidying will be tried again: %s", error)
            self._instruments.failures.labels("tidy").inc()

    def _compact(self, now: float) -> None:
        """Drop payloads that are old enough, where that is wished; every so often."""
        if now < self._compact_at:
            return
        self._compact_at = now + COMPACT_EVERY_S
        for task in self._tasks.values():
            try:
                compact(
                    self._ledger,
                    self._blobs,
                    self._retention,
                    task.name,
                    task.specs,
                    now=self._clock.time(),
                )
            except (LedgerUnavailableError, OSError) as error:
                _log.error("payloads of task %s stay for now: %s", task.name, error)
                self._instruments.failures.labels("compaction").inc()

    def _show(self, task: Task) -> None:
        self._instruments.version.labels(task.name).set(task.version)
        self._instruments.pending.labels(task.name).set(task.pending)
        bound = self._admission.norm_bound(task.norms)
        self._instruments.norm_bound.labels(task.name).set(bound)
