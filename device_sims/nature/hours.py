"""Hours of the day that come back every day."""

import math
from dataclasses import dataclass

__all__ = ["Hours"]

HOUR_S = 3_600.0
DAY_S = 24 * HOUR_S


@dataclass(frozen=True, slots=True)
class Hours:
    """From one time of the day to another, over midnight where the first is the later one.

    Attributes:
        from_s: seconds after the day's beginning.
        length_s: how long, above 0 and at most a day.
    """

    from_s: float
    length_s: float

    @classmethod
    def of(cls, hours: tuple[float, ...], *, later_h: float) -> "Hours":
        """From a scenario's [from, to].

        Args:
            hours: two hours of the day, which differ.
            later_h: hours to put both off by.
        """
        start, end = hours
        length = end - start if end > start else end - start + 24.0
        return cls((start + later_h) * HOUR_S % DAY_S, length * HOUR_S)

    def begins(self, at_s: float) -> float:
        """The first moment from ``at_s`` on that is inside."""
        since_s = (at_s - self.from_s) % DAY_S
        return at_s if since_s < self.length_s else at_s + DAY_S - since_s

    def ends(self, at_s: float) -> float:
        """The first moment from ``at_s`` on that is outside; infinity if there is none."""
        if self.length_s >= DAY_S:
            return math.inf
        since_s = (at_s - self.from_s) % DAY_S
        return at_s if since_s >= self.length_s else at_s + self.length_s - since_s
