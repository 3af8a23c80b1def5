"""A look at the database that costs little, however often somebody asks."""

import threading
from collections.abc import Callable

from aggregator.clock import Clock
from aggregator.ledger import LedgerUnavailableError

__all__ = ["Probe"]

FRESH_S = 1.0


class Probe:
    """Remembers for a second what a check said. Safe to use from many threads.

    Args:
        check: returns if the database can be written, or raises LedgerUnavailableError.
        clock: what time it is.
    """

    def __init__(self, check: Callable[[], None], clock: Clock) -> None:
        self._check, self._clock = check, clock
        self._lock = threading.Lock()
        self._checked_at = float("-inf")
        self._problem: str | None = None

    def problem(self) -> str | None:
        """What is wrong with the database, or None."""
        with self._lock:
            if self._clock.monotonic() - self._checked_at >= FRESH_S:
                try:
                    self._check()
                    self._problem = None
                except LedgerUnavailableError as error:
                    self._problem = str(error)
                self._checked_at = self._clock.monotonic()
            return self._problem
