"""Work whose time goes with a whole table: it is done less often where it takes longer."""

from collections.abc import Iterator
from contextlib import contextmanager

from aggregator.clock import Clock

__all__ = ["Effort"]


class Effort:
    """Remembers when some work ended and how long it took."""

    def __init__(self) -> None:
        self._ended_at, self._took_s = float("-inf"), 0.0

    @contextmanager
    def timed(self, clock: Clock) -> Iterator[None]:
        """The work itself, whatever comes of it."""
        begin = clock.monotonic()
        try:
            yield
        finally:
            self._ended_at = clock.monotonic()
            self._took_s = self._ended_at - begin

    def rested_at(self, share: float) -> float:
        """When it may be done again to take at most a share of the time: monotonic seconds."""
        return self._ended_at + self._took_s * (1.0 / share - 1.0)
