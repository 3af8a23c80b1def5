"""One device: how fast it is, how it is connected, and when."""

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from device_sims.nature.energy import Energy
from device_sims.nature.hours import Hours

__all__ = ["Conditions", "Nature", "Stretch"]

LEAST_STRETCH_S = 1e-3
"""What is shorter is rounding, where one window ends as another begins: a clock that counts from
1970 has no finer steps than a quarter of a microsecond."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """How fast a device works and sends.

    Attributes:
        update_s: seconds that a local update takes.
        latency_s: mean one-way delay of a message; exponential.
        up_bytes_s: bytes a second to the broker.
        down_bytes_s: bytes a second from the aggregator.
    """

    update_s: float
    latency_s: float
    up_bytes_s: float
    down_bytes_s: float


@dataclass(frozen=True, slots=True)
class Stretch:
    """A time in which a device has a connection.

    Attributes:
        from_s: when it begins, in seconds since the run began.
        to_s: when it ends; infinity if it does not.
        conditions: how fast the device is meanwhile.
    """

    from_s: float
    to_s: float
    conditions: Conditions


@dataclass(frozen=True, slots=True, kw_only=True)
class Nature:
    """What a device is like, for as long as it takes part. Times are seconds since the run began.

    Attributes:
        kind: name of its class.
        conditions: how fast it is, where its trace does not say otherwise.
        energy: what its work costs.
        skew_s: its clock is ahead by so much.
        joins_s: when it is there for the first time.
        leaves_s: when it goes for good; infinity for never.
        online_s: mean length of a stretch with a connection.
        offline_s: mean length of the stretch between two of them; 0 for always online.
        plugged: when it may take part.
        metered: when it must not; None for never.
        trace: its stretches in order, instead of all that; None where there is no trace.
        repeats_s: the trace begins again after so long; infinity for never.
        agent_version: what its agent says it is; None where the scenario says nothing of it.
    """

    kind: str
    conditions: Conditions
    energy: Energy
    skew_s: float
    joins_s: float
    leaves_s: float
    online_s: float
    offline_s: float
    plugged: Hours
    metered: Hours | None
    trace: Sequence[Stretch] | None
    repeats_s: float
    agent_version: str | None

    def next_stretch(self, now_s: float, rng: np.random.Generator) -> Stretch | None:
        """The next time with a connection, of a device that has none now.

        Args:
            now_s: the present.
            rng: draws how long it lasts, and how long the device is away before.

        Returns:
            None if there is none any more.
        """
        now_s = max(now_s, self.joins_s)
        found = self._drawn(now_s, rng) if self.trace is None else self._traced(now_s)
        if found is None or found.from_s > self.leaves_s - LEAST_STRETCH_S:
            return None
        return replace(found, to_s=min(found.to_s, self.leaves_s))

    def _drawn(self, now_s: float, rng: np.random.Generator) -> Stretch:
        away_s = rng.exponential(self.offline_s) if self.offline_s > 0.0 else 0.0
        stays_s = rng.exponential(self.online_s) if self.offline_s > 0.0 else math.inf
        from_s, closes_s = self._allowed(now_s + away_s)
        return Stretch(from_s, min(from_s + stays_s, closes_s), self.conditions)

    def _allowed(self, at_s: float) -> tuple[float, float]:
        """The first time from ``at_s`` on in which it may be connected, and when that ends."""
        while True:
            at_s = self.plugged.begins(at_s)
            ends_s = self.plugged.ends(at_s)
            if self.metered is not None:
                at_s = self.metered.ends(at_s)
                ends_s = min(ends_s, self.metered.begins(at_s))
            if ends_s - at_s >= LEAST_STRETCH_S:
                return at_s, ends_s
            at_s += LEAST_STRETCH_S

    def _traced(self, now_s: float) -> Stretch | None:
        trace = self.trace or ()
        begun = math.floor(now_s / self.repeats_s) * self.repeats_s if self._repeats else 0.0
        least_s = now_s - begun + LEAST_STRETCH_S
        at = bisect_right(trace, least_s, key=lambda stretch: stretch.to_s)
        if at == len(trace):
            if not trace or not self._repeats:
                return None
            at, begun = 0, begun + self.repeats_s
        found = trace[at]
        return replace(found, from_s=max(found.from_s + begun, now_s), to_s=found.to_s + begun)

    @property
    def _repeats(self) -> bool:
        return math.isfinite(self.repeats_s)
