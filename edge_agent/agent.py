"""One device's decisions: when to train, on what, and what to do with every message it gets."""

import logging
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import TypeVar

import numpy as np

from edge_agent.base import Base, BaseLoader
from edge_agent.config import AgentConfig
from edge_agent.downloads import BlobSource
from edge_agent.durable_state import DurableState
from edge_agent.errors import (
    AgentError,
    DownloadError,
    StoreError,
    TransientDownloadError,
)
from edge_agent.evaluation import Evaluation, evaluate
from edge_agent.local_update import prepare, trained
from edge_agent.outbox import Outbox, Transport
from edge_agent.runtimes.protocol import Runtime
from edge_agent.schedule import Schedule
from edge_agent.task import LocalTask
from edge_agent.trainer import Here, Made, Trainer, Work
from wire import topics
from wire.delta import FloatArray
from wire.errors import WireError
from wire.messages import Announcement, Metric, Outcome, Receipt, Refusal, Update

__all__ = ["Agent", "Base", "Sent"]

logger = logging.getLogger(__name__)

HISTORY_POLL_S = 30.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """One finished local update, safe in the outbox.

    Attributes:
        sequence: its number.
        base_version: the version it started from.
        message_bytes: size of the whole message.
        received_bytes: downloaded since the one before.
        examples: training interactions behind it.
        train_loss: mean loss a step.
        evaluation: of the base version, before training; None when nothing is held out.
    """

    sequence: int
    base_version: int
    message_bytes: int
    received_bytes: int
    examples: int
    train_loss: float
    evaluation: Evaluation | None


@dataclass(frozen=True, slots=True)
class _Begun:
    """An update whose work was given away."""

    result: Callable[[], Made]
    evaluation: Evaluation | None


class Agent:
    """A synchronous state machine. One call at a time; it never waits but for downloads.

    A driver connects it to the world: it passes messages to ``receive``, says when the network
    comes and goes, and calls ``send_due`` and, when ``update_due``, ``begin_update`` and
    ``finish_update`` at the time that ``next_due`` gives.

    Args:
        config: settings of the device.
        store: its durable state; this agent is the only one that trains on it.
        source: where models come from.
        runtime: what trains.
        transport: where messages go.
        clock: unix seconds.
        rng: for sampling and jitter; None seeds from the operating system.
        trainer: does the work of its updates; None for where it is due, one after the other.
    """

    def __init__(
        self,
        config: AgentConfig,
        *,
        store: DurableState,
        source: BlobSource,
        runtime: Runtime,
        transport: Transport,
        clock: Callable[[], float] = time.time,
        rng: np.random.Generator | None = None,
        trainer: Trainer | None = None,
    ) -> None:
        self._config, self._store, self._clock = config, store, clock
        self._rng = np.random.default_rng() if rng is None else rng
        store.claim(config.device)
        self._outbox = Outbox(
            config.device,
            store=store,
            transport=transport,
            limits=config.outbox,
            clock=clock,
            rng=self._rng,
        )
        self._task: str | None = config.task or store.get("task")
        self._loader = BaseLoader(store=store, source=source, runtime=runtime)
        self._schedule = Schedule(
            float(store.get("next_update_at") or 0.0), clock=clock, rng=self._rng
        )
        self._trainer = trainer or Here()
        self._started: Callable[[], _Begun | None] | None = None
        self._announcement: Announcement | None = None
        self._ignored: set[str] = set()
        self._online = self._training = self._history_seen = False

    @property
    def device(self) -> str:
        """The device's id."""
        return self._config.device

    @property
    def task(self) -> str | None:
        """The task it takes part in, once it is known."""
        return self._task

    @property
    def announcement(self) -> Announcement | None:
        """The newest announcement of its task in this process."""
        return self._announcement

    @property
    def outbox(self) -> Outbox:
        """What waits for receipts."""
        return self._outbox

    @property
    def store(self) -> DurableState:
        """The device's durable state."""
        return self._store

    @property
    def received_bytes(self) -> int:
        """Bytes downloaded since the last update that went into the outbox."""
        return self._loader.received_bytes

    def subscriptions(self) -> tuple[str, ...]:
        """Topic filters whose messages it wants."""
        announced = topics.announcement(self._task) if self._task else topics.ALL_ANNOUNCEMENTS
        return topics.receipts(self.device), announced

    # What happens around it

    def connected(self) -> None:
        """The broker can be reached, and everything subscribed to arrives from here on."""
        self._online = True
        self._outbox.reconnected()

    def disconnected(self) -> None:
        """The broker is away; nothing is trained until it is back, for it would only grow stale."""
        self._online = False

    def receive(self, topic: str, payload: bytes) -> None:
        """A message arrived; one that is malformed or not for this device is logged and dropped.

        Raises:
            StoreError: it could not be acted upon; the aggregator will send its receipt again.
        """
        try:
            if topic == topics.receipts(self.device):
                self._answered(Receipt.decode(payload))
            elif topic.startswith(f"{topics.ROOT}/tasks/"):
                self._announced(topics.task_of(topic), payload)
            else:
                logger.warning("message on %s, which was not asked for", topic)
        except WireError as error:
            logger.warning("message on %s is refused: %s", topic, error)

    # When to do something

    def update_due(self) -> bool:
        """Whether a local update should begin now."""
        return self._may_train() and self._clock() >= self._due_at()

    def next_due(self, *, training: bool = True) -> float | None:
        """Unix seconds when ``send_due`` or ``begin_update`` will have something to do.

        None while only a message or a connection can change that.

        Args:
            training: whether to count ``begin_update``.
        """
        if not self._online:
            return None
        times = [self._outbox.next_due]
        if training and self._may_train():
            times.append(self._due_at())
        elif training and not self._history_seen:
            # Another process may be adding the first interactions.
            times.append(self._clock() + HISTORY_POLL_S)
        return min((at for at in times if at is not None), default=None)

    def send_due(self) -> None:
        """Send what waits for a receipt too long."""
        if self._online:
            self._outbox.send_due()

    # The local update

    def begin_update(self, *, early: bool = False) -> Base | None:
        """Get the announced version, downloading what is missing.

        Args:
            early: do not wait for the interval of the task's policy.

        Returns:
            None when it is not the time, or the version cannot be had now.
        """
        announcement = self._announcement
        if announcement is None or not (self._may_train() if early else self.update_due()):
            return None
        try:
            base = self._loader.load(announcement)
        except (AgentError, WireError) as error:
            transient = isinstance(error, TransientDownloadError | StoreError)
            level = logging.WARNING if transient else logging.ERROR
            logger.log(level, "cannot begin a local update: %s", error)
            self._schedule.failed(transient=transient)
            return None
        self._training = True
        return base

    def train_ahead(self, base: Base) -> None:
        """Give the trainer its work now, with what the device knows now.

        For a driver that lets time pass between the beginning of an update and its end;
        ``finish_update`` gives it otherwise.
        """
        self._started = _caught(lambda: self._start(base))

    def finish_update(self, base: Base) -> Sent | None:
        """Train from a base version and put the result into the outbox.

        Returns:
            None when there is nothing to train on, or it failed: then nothing has changed.
        """
        try:
            return self._finish_update(base)
        finally:
            # Only now: whoever waits for a device to settle must find the update in its outbox.
            self._training = False

    # What it can say

    @property
    def is_training(self) -> bool:
        """Whether an update has begun and is not in the outbox yet; from any thread."""
        return self._training

    def private_parameters(self, task: LocalTask) -> Mapping[str, FloatArray]:
        """The device's private parameters of a task. They are for this device only."""
        stored = self._store.private(task.id, task.manifest.private_parameters)
        return {**task.initial_private, **stored}

    # Messages

    def _announced(self, task: str, payload: bytes) -> None:
        announcement = _announcement(payload) if payload else None
        if announcement is not None and announcement.task != task:
            raise WireError(f"it announces the task {announcement.task}")
        if self._task is None and announcement is not None:
            logger.info("taking part in task %s, the first one announced", task)
            self._store.put("task", task)
            self._task = task
        if task == self._task:
            self._heed(announcement)
        elif self._task is not None and task not in self._ignored:
            self._ignored.add(task)
            if self._config.task is None:
                logger.warning("ignoring task %s: this device takes part in %s", task, self._task)

    def _heed(self, announcement: Announcement | None) -> None:
        """Take over the newest announcement of the own task; None withdraws the task."""
        if announcement is None:
            logger.info("task %s was withdrawn", self._task)
        else:
            self._schedule.announced()
        self._announcement = announcement

    def _answered(self, receipt: Receipt) -> None:
        self._outbox.settle(receipt)
        if receipt.outcome is Outcome.REJECTED:
            # What it held may be part of the residual again, which work that has begun lacks.
            self._started = None
        if receipt.reason is Refusal.RATE and self._announcement:
            self._schedule.rest(self._announcement.training.interval_s)

    # Beginning

    def _may_train(self) -> bool:
        announcement = self._announcement
        return (
            self._online
            and not self._training
            and announcement is not None
            and not announcement.paused
            and not self._outbox.full
            and self._has_history()
        )

    def _has_history(self) -> bool:
        self._history_seen = self._history_seen or self._store.count_interactions() > 0
        return self._history_seen

    def _due_at(self) -> float:
        announcement = self._announcement
        return self._schedule.due_at(announcement.training.interval_s if announcement else 0.0)

    # Finishing

    def _finish_update(self, base: Base) -> Sent | None:
        sent = None
        due_at = self._schedule.not_before
        self._schedule.rest(base.announcement.training.interval_s)
        started, self._started = self._started or (lambda: self._start(base)), None
        try:
            begun = started()
            sent = self._send(base, begun) if begun is not None else None
        except DownloadError as error:
            logger.warning("the local update lacks rows and changed nothing: %s", error)
            self._schedule.go_on(due_at)
        except (AgentError, WireError) as error:
            logger.error("the local update failed and changed nothing: %s", error)
        if sent is None:
            self._schedule.failed(transient=True)
        else:
            self._schedule.succeeded()
        return sent

    def _start(self, base: Base) -> "_Begun | None":
        task, announcement = base.task, base.announcement
        private = self.private_parameters(task)
        history = self._store.history(task.manifest.context).known_to(task.manifest)
        before = history.before_latest(task.manifest)
        held_out = self._config.holdout and len(before) > 0
        evaluation = None
        if held_out:
            evaluation = evaluate(
                task.manifest,
                base.parameters,
                private,
                history,
                seed=zlib.crc32(self.device.encode()),
                scorer=task.scorer,
            )
        training = prepare(
            task.manifest,
            base.parameters,
            private,
            before if held_out else history,
            announcement.training,
            self._rng,
            task.program.capacity,
        )
        if not training.samples:
            return None
        specs, codec = task.manifest.federated, announcement.codec
        work = Work(
            training=training,
            residual=self._store.residual(task.id, specs, trained(specs, training), codec),
            codec=codec,
            seed=int(self._rng.integers(1 << 63)),
        )
        return _Begun(self._trainer.start(task, work), evaluation)

    def _send(self, base: Base, begun: "_Begun") -> Sent:
        announcement, evaluation, made = base.announcement, begun.evaluation, begun.result()
        received_bytes = self._loader.take_received_bytes()
        update = Update(
            task=announcement.task,
            sequence=self._next_sequence(),
            base_version=announcement.version,
            examples=made.examples,
            payload=made.payload,
            metrics=_metrics(made.train_loss, evaluation),
        )
        message_bytes = self._outbox.put(
            update,
            online=self._online,
            private=made.private,
            residual=made.residual,
            residual_updates=announcement.codec.residual_updates,
            facts={
                "next_update_at": self._schedule.not_before,
                "evaluation": evaluation and asdict(evaluation),
            },
            received_bytes=received_bytes,
        )
        return Sent(
            sequence=update.sequence,
            base_version=update.base_version,
            message_bytes=message_bytes,
            received_bytes=received_bytes,
            examples=made.examples,
            train_loss=made.train_loss,
            evaluation=evaluation,
        )

    def _next_sequence(self) -> int:
        """Greater than every one before, and than those that a lost or restored disk forgot.

        (device, sequence) names an update for ever, so a device that starts afresh must not count
        from one again: its updates would be taken for duplicates.
        """
        return max(self._store.last_sequence() + 1, int(self._clock()))


def _caught(call: Callable[[], T]) -> Callable[[], T]:
    """Call it now; what is returned gives its result, or raises its error."""
    try:
        result = call()
    except (AgentError, WireError) as error:
        caught = error

        def fail() -> T:
            raise caught

        return fail
    return lambda: result


@lru_cache(maxsize=2)
def _announcement(payload: bytes) -> Announcement:
    """Decoded once for all agents of a process, which get the same one."""
    return Announcement.decode(payload)


def _metrics(train_loss: float, evaluation: Evaluation | None) -> dict[Metric, float]:
    metrics = {Metric.TRAIN_LOSS: train_loss}
    if evaluation is not None:
        metrics[Metric.HR_AT_10] = evaluation.hr_at_10
        metrics[Metric.NDCG_AT_10] = evaluation.ndcg_at_10
        metrics[Metric.EVAL_LOSS] = evaluation.loss
    return metrics
