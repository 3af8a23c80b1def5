"""What a batch of messages comes to: what to write in the ledger, and what to answer.

Nothing is written or sent here. Every update gets one decision for ever: what was accepted or
refused before is answered as before, also when it would be judged otherwise by now. Otherwise a
device could put a refused delta back into its residual and have a second copy of it accepted.

A refusal of the moment (``Refusal.momentary``) decides nothing: the device keeps the update, which
is in no residual then, and sends it again, so the copy that is accepted in the end is the only one
that counts. And whoever floods the service leaves no rows behind in its ledger.
"""

import logging
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from aggregator.admission import AdmissionPolicy, Admitted, admit
from aggregator.ledger import (
    Decision,
    DeviceStatus,
    Event,
    Intake,
    NewUpdate,
    Rejection,
    UpdateKey,
)
from aggregator.norms import Norms
from aggregator.rates import Trial
from wire import topics
from wire.delta import Delta
from wire.errors import MessageError
from wire.manifest import ParameterSpec
from wire.messages import MAX_MESSAGE_BYTES, Outcome, Receipt, Refusal, Status, Update

__all__ = ["Inbound", "Received", "TaskView", "receive"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Inbound:
    """A message from the broker.

    Attributes:
        topic: where it was published.
        payload: its body.
        acknowledge: tells the broker that it is dealt with; to be called once it is durable.
    """

    topic: str
    payload: bytes
    acknowledge: Callable[[], None]


class TaskView(Protocol):
    """What must be known of a task to judge an update."""

    @property
    def specs(self) -> Sequence[ParameterSpec]:
        """The federated parameters."""

    @property
    def version(self) -> int:
        """The current version."""

    @property
    def interval_s(self) -> float:
        """Least time between two updates of one device; 0 for none."""

    @property
    def norms(self) -> Norms:
        """Those of the updates that were accepted lately."""


@dataclass(frozen=True, slots=True)
class Received:
    """The outcome of a batch.

    Attributes:
        intake: for the ledger.
        deltas: the decoded delta of each of ``intake.updates``.
        norms: by task, for those of ``intake.updates``: the norms with the new ones.
        receipts: answers, as (device, receipt), to be sent once the intake is durable.
    """

    intake: Intake
    deltas: Sequence[Delta]
    norms: Mapping[str, Norms]
    receipts: Sequence[tuple[str, Receipt]]


@dataclass(frozen=True, slots=True)
class _Envelope:
    key: UpdateKey
    update: Update
    size_bytes: int


def receive(
    messages: Sequence[Inbound],
    *,
    tasks: Mapping[str, TaskView],
    decisions: Callable[[Sequence[UpdateKey]], Mapping[UpdateKey, Decision]],
    enrolled: Collection[str] | None,
    rates: Trial,
    policy: AdmissionPolicy,
    now: float,
) -> Received:
    """Judge a batch of messages, in their order. No content of a message makes it raise.

    Args:
        messages: updates and statuses, from any device, of any content.
        tasks: the tasks that exist.
        decisions: looks up what was decided before; asked once.
        enrolled: the devices that may take part; None for all.
        rates: counts what each device sends; to be settled once the intake is durable.
        policy: the bounds of admission.
        now: seconds since 1970.
    """
    sorting = _Sorting(now, enrolled)
    for message in messages:
        sorting.read(message)
    before = decisions([envelope.key for envelope in sorting.envelopes])
    judging = _Judging(tasks, before, enrolled, rates, policy, now)
    for envelope in sorting.envelopes:
        judging.judge(envelope)
    intake = Intake(
        at=now,
        known_tasks=frozenset(tasks),
        updates=judging.updates,
        rejections=judging.rejections,
        momentary=judging.momentary,
        norms={name: tasks[name].norms.changes(norms) for name, norms in judging.norms.items()},
        duplicates=judging.duplicates,
        unreadable=sorting.unreadable,
        statuses=sorting.statuses,
        events=[*sorting.events(), *judging.events()],
    )
    return Received(intake, judging.deltas, judging.norms, judging.receipts)


class _Sorting:
    """First pass: from bytes to envelopes and statuses."""

    def __init__(self, now: float, enrolled: Collection[str] | None) -> None:
        self._now, self._enrolled = now, enrolled
        self._errors: dict[str, str] = {}
        self.envelopes: list[_Envelope] = []
        self.statuses: list[DeviceStatus] = []
        self.unreadable: Counter[Refusal] = Counter()

    def read(self, message: Inbound) -> None:
        size_bytes = len(message.payload)
        try:
            device = topics.device_of(message.topic)
            if message.topic == topics.updates(device):
                update = Update.decode(message.payload)
                key = UpdateKey(update.task, device, update.sequence)
                self.envelopes.append(_Envelope(key, update, size_bytes))
            elif message.topic == topics.status(device) and size_bytes > 0:
                self._read_status(device, Status.decode(message.payload))
        except MessageError as error:
            oversize = size_bytes > MAX_MESSAGE_BYTES
            self.unreadable[Refusal.OVERSIZE if oversize else Refusal.MALFORMED] += 1
            self._errors[message.topic] = str(error)
        except Exception as error:
            # The broker would deliver the message that stopped this process to the next one too.
            _log.exception("a message on %.100s cannot be decoded", message.topic)
            self.unreadable[Refusal.MALFORMED] += 1
            self._errors[message.topic] = f"decoding fails with {type(error).__name__}"

    def events(self) -> list[Event]:
        """One for each topic that something unreadable came from."""
        return [
            Event(at=self._now, kind="unreadable", detail=f"on {topic[:100]}: {error}"[:400])
            for topic, error in self._errors.items()
        ]

    def _read_status(self, device: str, status: Status) -> None:
        if self._enrolled is not None and device not in self._enrolled:
            self.unreadable[Refusal.UNKNOWN_DEVICE] += 1
            return
        self.statuses.append(
            DeviceStatus(
                device=device,
                state=status.state.value,
                agent=status.agent,
                runtime=status.runtime,
                at=self._now,
            )
        )


class _Judging:
    """Second pass: from envelopes to decisions."""

    def __init__(
        self,
        tasks: Mapping[str, TaskView],
        before: Mapping[UpdateKey, Decision],
        enrolled: Collection[str] | None,
        rates: Trial,
        policy: AdmissionPolicy,
        now: float,
    ) -> None:
        self._tasks, self._policy, self._now = tasks, policy, now
        self._enrolled, self._rates = enrolled, rates
        self._decided = dict(before)
        self.updates: list[NewUpdate] = []
        self.deltas: list[Delta] = []
        self.norms: dict[str, Norms] = {}
        self.rejections: list[Rejection] = []
        self.momentary: list[Rejection] = []
        self.duplicates: list[UpdateKey] = []
        self.receipts: list[tuple[str, Receipt]] = []

    def judge(self, envelope: _Envelope) -> None:
        before = self._decided.get(envelope.key)
        if before is None:
            decision = self._decide(envelope)
            if decision.reason is None or not decision.reason.momentary:
                self._decided[envelope.key] = decision
            self._answer(envelope.key, decision.outcome, decision.reason)
        else:
            self.duplicates.append(envelope.key)
            accepted = before.outcome is Outcome.ACCEPTED
            self._answer(
                envelope.key, Outcome.DUPLICATE if accepted else before.outcome, before.reason
            )

    def events(self) -> list[Event]:
        """One for each device, task and reason, however many updates it sent."""
        refused = (*self.rejections, *self.momentary)
        counts = Counter((r.key.task, r.key.device, r.reason) for r in refused)
        return [
            Event(
                at=self._now,
                kind="refused",
                task=task,
                device=device,
                detail=f"{count} refused as {reason.slug}. {reason.advice}",
            )
            for (task, device, reason), count in counts.items()
        ]

    def _decide(self, envelope: _Envelope) -> Decision:
        verdict = self._verdict(envelope)
        if isinstance(verdict, Refusal):
            refused = self.momentary if verdict.momentary else self.rejections
            refused.append(Rejection(key=envelope.key, reason=verdict, at=self._now))
            return Decision(outcome=Outcome.REJECTED, reason=verdict)
        update = envelope.update
        new = NewUpdate(
            key=envelope.key,
            base_version=update.base_version,
            examples=update.examples,
            payload=update.payload,
            size_bytes=envelope.size_bytes,
            metrics={metric.slug: value for metric, value in update.metrics.items()},
            received_at=self._now,
        )
        self.updates.append(new)
        self.deltas.append(verdict.delta)
        self.norms[update.task] = self._norms(update.task).plus(verdict.norm)
        return Decision(outcome=Outcome.ACCEPTED)

    def _verdict(self, envelope: _Envelope) -> Admitted | Refusal:
        update, device = envelope.update, envelope.key.device
        if self._enrolled is not None and device not in self._enrolled:
            return Refusal.UNKNOWN_DEVICE
        task = self._tasks.get(update.task)
        if task is None:
            return Refusal.UNKNOWN_TASK
        spacing_s = task.interval_s * (1.0 - self._policy.rate_tolerance)
        burst = self._policy.rate_burst
        if not self._rates.allows(update.task, device, spacing_s=spacing_s, burst=burst):
            return Refusal.RATE
        try:
            return admit(
                update,
                specs=task.specs,
                version=task.version,
                policy=self._policy,
                norms=self._norms(update.task),
            )
        except Exception:
            _log.exception("update %d of task %s cannot be judged", update.sequence, update.task)
            return Refusal.WRONG_SHAPE

    def _norms(self, task: str) -> Norms:
        return self.norms.get(task) or self._tasks[task].norms

    def _answer(self, key: UpdateKey, outcome: Outcome, reason: Refusal | None) -> None:
        task = self._tasks.get(key.task)
        receipt = Receipt(
            task=key.task,
            sequence=key.sequence,
            outcome=outcome,
            reason=reason,
            version=0 if task is None else task.version,
        )
        self.receipts.append((key.device, receipt))
