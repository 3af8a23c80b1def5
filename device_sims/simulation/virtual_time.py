"""A clock that jumps from one event to the next."""

import heapq
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Alarm", "VirtualTime"]

START = 1_700_000_000.0


@dataclass(slots=True)
class Alarm:
    """Something that will happen, unless it is cancelled.

    Attributes:
        at: when, in seconds since 1970.
        call: what happens; None once it is cancelled.
    """

    at: float
    call: Callable[[], object] | None

    def cancel(self) -> None:
        """It will not happen."""
        self.call = None


class VirtualTime:
    """Time as a simulation has it; a ``Clock`` of the aggregator and a clock of agents."""

    def __init__(self) -> None:
        self._now, self._count = START, 0
        # Of two at the same time, the one that was set first comes first.
        self._alarms: list[tuple[float, int, Alarm]] = []
        self.interrupted = False

    def __call__(self) -> float:
        """Seconds since 1970."""
        return self._now

    time = monotonic = __call__

    def at(self, at: float, call: Callable[[], object]) -> Alarm:
        """Have something happen at a time, or now if that is past."""
        self._count += 1
        alarm = Alarm(max(at, self._now), call)
        heapq.heappush(self._alarms, (alarm.at, self._count, alarm))
        return alarm

    def after(self, delay_s: float, call: Callable[[], object]) -> Alarm:
        """Have something happen in a while."""
        return self.at(self._now + delay_s, call)

    def interrupt(self) -> None:
        """Have the current ``run_until`` end after what is happening; safe in a signal handler."""
        self.interrupted = True

    def run_until(self, end: float) -> None:
        """Let everything happen that is due until then."""
        while self._alarms and self._alarms[0][0] <= end:
            if self.interrupted:
                return
            self._now, _, alarm = heapq.heappop(self._alarms)
            if alarm.call is not None:
                alarm.call()
        self._now = max(self._now, end)
