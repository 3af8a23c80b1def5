"""The path of every message: judged, made durable, and only then acknowledged and answered."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from aggregator.admission import AdmissionPolicy
from aggregator.clock import Clock
from aggregator.ledger import DecidedMeanwhileError, Ledger
from aggregator.merging import Contribution
from aggregator.metrics import Instruments
from aggregator.reception import Inbound, Received, TaskView, receive
from wire import topics
from wire.messages import Refusal

__all__ = ["Acceptance", "Publish"]

ATTEMPTS = 10
OUT_OF_DATE = frozenset({Refusal.UNKNOWN_TASK, Refusal.FROM_THE_FUTURE})
"""What an update is refused for by a process that does not know the newest task or version."""


class Publish(Protocol):
    """Sends a message at QoS 1, now or when there is a connection; never raises, never waits."""

    def __call__(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Publish ``payload`` on ``topic``."""


class Acceptance:
    """Takes messages in, alone or beside other processes that do the same.

    Args:
        ledger: where they become durable.
        publish: sends receipts.
        clock: what time it is.
        instruments: what is counted.
        policy: bounds that every update must keep to.
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
        refresh: Callable[[], None] | None = None,
    ) -> None:
        self._ledger, self._publish, self._clock = ledger, publish, clock
        self._instruments, self._policy, self._refresh = instruments, policy, refresh

    def take(
        self, messages: Sequence[Inbound], tasks: Mapping[str, TaskView]
    ) -> dict[str, list[Contribution]]:
        """Take a batch in.

        Args:
            messages: updates and statuses, from any device, of any content.
            tasks: the tasks that exist; ``refresh`` changes this very mapping.

        Returns:
            By task, the updates that wait for a merge now, in the order of their ids.

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
        taken: dict[str, list[Contribution]] = {}
        for update, delta, id_ in zip(received.intake.updates, received.deltas, ids, strict=True):
            waiting = Contribution(
                id_, update.base_version, update.examples, delta, update.key.device
            )
            taken.setdefault(update.key.task, []).append(waiting)
        return taken

    def _make_durable(
        self, messages: Sequence[Inbound], tasks: Mapping[str, TaskView]
    ) -> tuple[Received, list[int]]:
        attempts = 0
        while True:
            received = self._judge(messages, tasks)
            try:
                with self._instruments.commit_s.time():
                    return received, self._ledger.take_in(received.intake)
            except DecidedMeanwhileError:
                attempts += 1
                if attempts == ATTEMPTS:
                    raise
                if self._refresh is not None:
                    self._refresh()

    def _judge(self, messages: Sequence[Inbound], tasks: Mapping[str, TaskView]) -> Received:
        received = self._receive(messages, tasks)
        refused = {rejection.reason for rejection in received.intake.rejections}
        if self._refresh is None or not refused & OUT_OF_DATE:
            return received
        self._refresh()
        return self._receive(messages, tasks)

    def _receive(self, messages: Sequence[Inbound], tasks: Mapping[str, TaskView]) -> Received:
        return receive(
            messages,
            tasks=tasks,
            decisions=self._ledger.decisions,
            policy=self._policy,
            now=self._clock.time(),
        )

    def _count(self, received: Received, messages: int) -> None:
        self._instruments.batch.observe(messages)
        for _, receipt in received.receipts:
            self._instruments.updates.labels(receipt.outcome.name.lower()).inc()
        for rejection in received.intake.rejections:
            self._instruments.refusals.labels(rejection.reason.slug).inc()
        for reason, count in (received.intake.unreadable or {}).items():
            self._instruments.refusals.labels(reason.slug).inc(count)
        self._instruments.received_bytes.inc(sum(u.size_bytes for u in received.intake.updates))
