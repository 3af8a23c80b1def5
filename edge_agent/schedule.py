"""When the next local update may begin: the task's interval, and back-off after a failure."""

from collections.abc import Callable

import numpy as np

__all__ = ["Schedule"]

FIRST_RETRY_S = 1.0
LONGEST_RETRY_S = 900.0
DOUBLINGS = 16
INTERVAL_JITTER_RATIO = 0.1


class Schedule:
    """The earliest time of the next local update.

    Args:
        not_before: unix seconds, as an earlier process left it.
        clock: unix seconds.
        rng: for jitter.
    """

    def __init__(
        self, not_before: float, *, clock: Callable[[], float], rng: np.random.Generator
    ) -> None:
        self._not_before, self._clock, self._rng = not_before, clock, rng
        self._failures = 0
        self._when_announced: float | None = None

    @property
    def not_before(self) -> float:
        """Unix seconds."""
        return self._not_before

    def due_at(self, interval_s: float) -> float:
        """Unix seconds of the next update under a policy's interval.

        A clock that was set back, or an interval that was shortened, does not hold it up.
        """
        longest = max(interval_s * (1.0 + INTERVAL_JITTER_RATIO), LONGEST_RETRY_S)
        self._not_before = min(self._not_before, self._clock() + longest)
        return self._not_before

    def rest(self, interval_s: float) -> None:
        """Wait for the interval, and up to a tenth more so that devices drift apart."""
        jitter = float(self._rng.uniform(0.0, INTERVAL_JITTER_RATIO))
        self._not_before = max(self._not_before, self._clock() + interval_s * (1.0 + jitter))

    def go_on(self, not_before: float) -> None:
        """Take back a rest: nothing was done that calls for one."""
        self._not_before = not_before

    def failed(self, *, transient: bool) -> None:
        """Back off exponentially with full jitter.

        Args:
            transient: whether asking again can help; if not, the next announcement may.
        """
        self._failures += 1
        longest = min(FIRST_RETRY_S * 2.0 ** min(self._failures, DOUBLINGS), LONGEST_RETRY_S)
        retry_at = self._clock() + float(self._rng.uniform(0.0, longest))
        wait_until = retry_at if transient else self._clock() + LONGEST_RETRY_S
        self._not_before = max(self._not_before, wait_until)
        self._when_announced = None if transient else retry_at

    def succeeded(self) -> None:
        """The next failure is the first again."""
        self._failures, self._when_announced = 0, None

    def announced(self) -> None:
        """Something new was announced: what failed for good before may work now."""
        if self._when_announced is not None:
            self._not_before, self._when_announced = self._when_announced, None
