"""Time as the aggregator sees it, so that a simulation can drive it."""

from typing import Protocol

__all__ = ["Clock"]


class Clock(Protocol):
    """Two clocks in one; the ``time`` module is the real one."""

    def time(self) -> float:
        """Seconds since 1970, for what is recorded. May jump."""

    def monotonic(self) -> float:
        """Seconds from any start, for what is waited for. Never jumps."""
