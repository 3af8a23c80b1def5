"""The path of every message: judged, made durable, and only then acknowledged and answered."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from aggregator.admission import AdmissionPolicy
from aggregator.clock import Clock
from aggregator.ledger import DecidedMeanwhileError, Ledger
from aggregator.merging import Contribution
from aggregator.metrics import Instruments
from aggregator.norms import Norms
from aggregator.rates import Rates, Trial
from aggregator.reception import Inbound, Received, TaskView, receive
from wire import topics
from wire.messages import Refusal

__all__ = ["Acceptance", "Publish", "Taken"]

ATTEMPTS = 10
OUT_OF_DATE = frozenset({Refusal.UNKNOWN_TASK, Refusal.FROM_THE_FUTURE, Refusal.NORM})
"""What an update may be refused for only because a process does not know the newest state."""


class Publish(Protocol):
    """Sends a message at QoS 1, now or when there is a connection; never raises, never waits."""

    def __call__(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Publish ``payload`` on ``topic``."""


@dataclass(slots=True)
class Taken:
    """What a batch brought one task.

    Attributes:
        norms: those of the updates accepted lately, with the new ones.
        contributions: the updates that wait for a merge now, in the order of their ids.
    """

    norms: Norms
    contributions: list[Contribution] = field(default_factory=list)


class Acceptance:
    """Takes messages in, alone or beside other processes that do the same.

    Args:
        ledger: where they become durable.
        publish: sends receipts.
        clock: what time it is.
        instruments: what is counted.
        policy: bounds that every update must keep to.
        enrolled: the devices that may take part, asked once a batch; None for all.
        refresh: brings the tasks up to date where another process makes their versions; asked
            before an update is refused for what only this process does not know yet.
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        publish: Publish,
        clock: Clock,
        instruments: Instruments,
        policy: AdmissionPolicy,
        enrolled: Callable[[], Collection[str] | None] = lambda: None,
        refresh: Callable[[], None] | None = None,
    ) -> None:
        self._ledger, self._publish, self._clock = ledger, publish, clock
        self._instruments, self._policy, self._refresh = instruments, policy, refresh
        self._enrolled, self._rates = enrolled, Rates()

    def take(self, messages: Sequence[Inbound], tasks: Mapping[str, TaskView]) -> dict[str, Taken]:
        """Take a batch in.

        Args:
            messages: updates and statuses, from any device, of any content.
            tasks: the tasks that exist; ``refresh`` changes this very mapping.

        Returns:
            What was accepted, by task.

        Raises:
            LedgerUnavailableError: the database refuses. Nothing was acknowledged, answered or
                changed; hand in the same batch again.
        """
        received, ids = self._make_durable(messages, tasks)
        for message in messages:
            message.acknowledge()
        for device, receipt in received.receipts:
            self._publish(topics.receipts(device), receipt.encode())
        self._count(received, len(messages))
        taken = {name: Taken(norms) for name, norms in received.norms.items()}
        for update, delta, id_ in zip(received.intake.updates, received.deltas, ids, strict=True):
            waiting = Contribution(
                id_, update.base_version, update.examples, delta, update.key.device
            )
            taken[update.key.task].contributions.append(waiting)
        return taken

    def _make_durable(
        self, messages: Sequence[Inbound], tasks: Mapping[str, TaskView]
    ) -> tuple[Received, list[int]]:
        attempts = 0
        while True:
            received, trial = self._judge(messages, tasks)
            try:
                with self._instruments.commit_s.time():
                    ids = self._ledger.take_in(received.intake)
            except DecidedMeanwhileError:
                attempts += 1
                if attempts == ATTEMPTS:
                    raise
                if self._refresh is not None:
                    self._refresh()
            else:
                self._rates.settle(trial)
                return received, ids

    def _judge(
        self, messages: Sequence[Inbound], tasks: Mapping[str, TaskView]
    ) -> tuple[Received, Trial]:
        received, trial = self._receive(messages, tasks)
        intake = received.intake
        refused = {rejection.reason for rejection in (*intake.rejections, *intake.momentary)}
        if self._refresh is None or not refused & OUT_OF_DATE:
            return received, trial
        self._refresh()
        return self._receive(messages, tasks)

    def _receive(
        self, messages: Sequence[Inbound], tasks: Mapping[str, TaskView]
    ) -> tuple[Received, Trial]:
        trial = self._rates.trial(self._clock.monotonic())
        received = receive(
            messages,
            tasks=tasks,
            decisions=self._ledger.decisions,
            enrolled=self._enrolled(),
            rates=trial,
            policy=self._policy,
            now=self._clock.time(),
        )
        return received, trial

    def _count(self, received: Received, messages: int) -> None:
        self._instruments.batch.observe(messages)
        for _, receipt in received.receipts:
            self._instruments.updates.labels(receipt.outcome.name.lower()).inc()
        for rejection in (*received.intake.rejections, *received.intake.momentary):
            self._instruments.refusals.labels(rejection.reason.slug).inc()
        for reason, count in (received.intake.unreadable or {}).items():
            self._instruments.refusals.labels(reason.slug).inc(count)
        self._instruments.received_bytes.inc(sum(u.size_bytes for u in received.intake.updates))
