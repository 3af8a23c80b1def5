"""What an ingest process does: it takes messages in, and another process merges them."""

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from aggregator.acceptance import Acceptance, Publish
from aggregator.admission import AdmissionPolicy
from aggregator.clock import Clock
from aggregator.ledger import Ledger, LedgerUnavailableError
from aggregator.metrics import Instruments
from aggregator.norms import Norms
from aggregator.reception import Inbound
from wire.manifest import Manifest, ParameterSpec
from wire.policy import TrainingPolicy

__all__ = ["Ingest"]

REFRESH_EVERY_S = 0.25

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Known:
    """A task as far as it must be known to judge updates; see ``reception.TaskView``."""

    specs: Sequence[ParameterSpec]
    version: int = 0
    interval_s: float = 0.0
    norms: Norms = field(default_factory=Norms)


class Ingest:
    """Takes messages in, beside other processes that do the same.

    It knows the tasks, their versions and what norms are usual as the ledger had them a quarter of
    a second ago, and looks again before it refuses an update for being ahead of that. How often a
    device sends it knows only of what came here: of several processes each lets it have its rate.

    Args:
        ledger: where updates become durable.
        publish: sends receipts.
        clock: what time it is.
        instruments: what is counted.
        admission: bounds that every update must keep to; the same in every process.
        enrolled: the devices that may take part, asked once a batch; None for all.
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        publish: Publish,
        clock: Clock,
        instruments: Instruments,
        admission: AdmissionPolicy,
        enrolled: Callable[[], Collection[str] | None] = lambda: None,
    ) -> None:
        self._ledger, self._clock, self._instruments = ledger, clock, instruments
        self._admission = admission
        self._tasks: dict[str, _Known] = {}
        self._refresh_at = clock.monotonic()
        self._acceptance = Acceptance(
            ledger=ledger,
            publish=publish,
            clock=clock,
            instruments=instruments,
            policy=admission,
            enrolled=enrolled,
            refresh=self.refresh,
        )

    def start(self) -> None:
        """Learn of the tasks; raises LedgerUnavailableError if the database refuses."""
        self.refresh()
        _log.info("taking updates of %d tasks", len(self._tasks))

    def ingest(self, messages: Sequence[Inbound]) -> None:
        """Judge a batch, make it durable, and only then acknowledge and answer it.

        Raises:
            LedgerUnavailableError: the database refuses. Nothing was acknowledged, answered or
                changed; hand in the same batch again.
        """
        for name, taken in self._acceptance.take(messages, self._tasks).items():
            self._tasks[name].norms = taken.norms

    @property
    def problem(self) -> None:
        """Nothing that it does is put off."""
        return None

    def tick(self) -> None:
        """Learn of new tasks and versions, when it is time to."""
        if self._refresh_at > self._clock.monotonic():
            return
        try:
            self.refresh()
        except LedgerUnavailableError as error:
            _log.error("tasks and versions will be looked up again: %s", error)
            self._instruments.failures.labels("refresh").inc()

    def next_due(self) -> float:
        """When ``tick`` should be called next, in monotonic seconds."""
        return self._refresh_at

    def refresh(self) -> None:
        """Learn of new tasks and versions now; raises LedgerUnavailableError."""
        self._refresh_at = self._clock.monotonic() + REFRESH_EVERY_S
        heads = self._ledger.heads()
        if heads.keys() - self._tasks.keys():
            for record in self._ledger.tasks():
                specs = Manifest.from_json(record.manifest).federated
                self._tasks.setdefault(record.task, _Known(specs))
        for name, head in heads.items():
            task = self._tasks[name]
            task.version, task.norms = head.version, Norms(head.norms)
            task.interval_s = TrainingPolicy.from_dict(head.training).interval_s
            self._instruments.version.labels(name).set(task.version)
            bound = self._admission.norm_bound(task.norms)
            self._instruments.norm_bound.labels(name).set(bound)

    def save_all(self) -> None:
        """Nothing: what it takes in is durable."""
