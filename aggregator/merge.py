"""What the merging process does: it merges what others take in, and does what others are asked."""

import logging
from collections.abc import Sequence

from aggregator.clock import Clock
from aggregator.commands import carry_out
from aggregator.engine import Engine
from aggregator.ledger import Errands, LedgerUnavailableError
from aggregator.metrics import Instruments
from aggregator.reception import Inbound

__all__ = ["Merge"]

LOOK_EVERY_S = 0.1
RETRY_AFTER_S = 1.0
KEPT_S = 3_600.0

_log = logging.getLogger(__name__)


class Merge:
    """An engine whose updates and commands come out of the database.

    Args:
        engine: not started yet.
        errands: the commands in the database.
        clock: what time it is.
        instruments: what is counted.
    """

    def __init__(
        self, engine: Engine, *, errands: Errands, clock: Clock, instruments: Instruments
    ) -> None:
        self.engine = engine
        self._errands, self._clock, self._instruments = errands, clock, instruments
        self._look_at = self._forget_at = clock.monotonic()

    def start(self) -> None:
        """Take up every task; see ``Engine.start``."""
        self.engine.start()

    def ingest(self, messages: Sequence[Inbound]) -> None:
        """No message comes here: nothing is subscribed to."""
        raise RuntimeError(f"{len(messages)} messages came to a process that takes none")

    @property
    def problem(self) -> str | None:
        """What the engine cannot do for now and tries again."""
        return self.engine.problem

    def tick(self) -> None:
        """Do what is due: commands, updates, and what follows from them."""
        now = self._clock.monotonic()
        if self._look_at <= now:
            self._look_at = now + LOOK_EVERY_S
            self._run_errands()
            self.engine.collect()
        self.engine.tick()

    def next_due(self) -> float:
        """When ``tick`` should be called next, in monotonic seconds; perhaps past."""
        return min(self._look_at, self.engine.next_due())

    def save_all(self) -> None:
        """Make a snapshot of every task, so that the next start replays nothing."""
        self.engine.save_all()

    def _run_errands(self) -> None:
        try:
            for errand in self._errands.waiting():
                answer = carry_out(self.engine, errand)
                self._errands.close(errand.id, answer, at=self._clock.time())
            if self._forget_at <= self._clock.monotonic():
                self._forget_at = self._clock.monotonic() + KEPT_S
                self._errands.forget(before=self._clock.time() - KEPT_S)
        except LedgerUnavailableError as error:
            _log.error("commands will be looked for again: %s", error)
            self._instruments.failures.labels("commands").inc()
            self._look_at = self._clock.monotonic() + RETRY_AFTER_S
