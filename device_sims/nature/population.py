"""Draws what devices are like."""

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from device_sims.nature.energy import Energy
from device_sims.nature.hours import HOUR_S, Hours
from device_sims.nature.nature import Conditions, Nature, Stretch
from device_sims.nature.trace import TracedStretch, read_trace
from device_sims.scenario.fleet import DeviceClass, FleetBehaviour

__all__ = ["Population"]

STREAM = 5
"""Sets these draws apart from all others of a run."""


class Population:
    """The devices of a fleet. A device's nature hangs on the seed and its number alone.

    Args:
        fleet: what devices are like.
        hours: how long the run is.
        seed: of the run.

    Raises:
        DatasetError: the trace cannot be read.
    """

    def __init__(self, fleet: FleetBehaviour, *, hours: float, seed: int) -> None:
        self._fleet, self._hours, self._seed = fleet, hours, seed
        self._trace = read_trace(fleet.trace) if fleet.is_traced else None
        shares = np.array([kind.share for kind in fleet.kinds])
        self._shares = shares / shares.sum()

    def nature(self, number: int) -> Nature:
        """What the device at a position of the fleet is like; the same whenever it is asked."""
        fleet, rng = self._fleet, np.random.default_rng([self._seed, STREAM, number])
        kind = fleet.kinds[int(rng.choice(len(self._shares), p=self._shares))]
        conditions = Conditions(
            update_s=kind.update_s * math.exp(kind.update_sigma * rng.normal()),
            latency_s=kind.latency_s,
            up_bytes_s=kind.up_bytes_s,
            down_bytes_s=kind.down_bytes_s,
        )
        skew_s = float(rng.uniform(-fleet.clock_skew_s, fleet.clock_skew_s))
        joins_s = self._joins_s(rng)
        stays_s = rng.exponential(fleet.stay_h * HOUR_S) if fleet.stay_h else math.inf
        plugged, metered = self._hours_of(kind, rng)
        return Nature(
            kind=kind.name,
            conditions=conditions,
            energy=Energy(train_w=kind.train_w, up_j_mb=kind.up_j_mb, down_j_mb=kind.down_j_mb),
            skew_s=skew_s,
            joins_s=joins_s,
            leaves_s=joins_s + stays_s,
            online_s=kind.online_s,
            offline_s=kind.offline_s,
            plugged=plugged,
            metered=metered,
            trace=self._stretches(number, conditions),
            repeats_s=fleet.trace_repeats_h * HOUR_S or math.inf,
            # Drawn last, so that the rest of a device does not hang on it.
            agent_version=_agent_version(fleet.agent_versions, rng),
        )

    def _joins_s(self, rng: np.random.Generator) -> float:
        is_new, when = rng.random() < self._fleet.new_share, rng.random()
        within_h = self._fleet.new_within_h or self._hours
        return float(when * within_h * HOUR_S) if is_new else 0.0

    def _hours_of(self, kind: DeviceClass, rng: np.random.Generator) -> tuple[Hours, Hours | None]:
        """Its plugged-in and metered hours, as times since the run began."""
        zone = float(rng.choice(self._fleet.time_zones))
        own_h = float(rng.normal()) * kind.hours_sigma
        later_h = own_h - zone - self._fleet.start_hour
        metered = Hours.of(kind.metered_hours, later_h=later_h) if kind.metered_hours else None
        return Hours.of(kind.plugged_hours, later_h=later_h), metered

    def _stretches(self, number: int, usual: Conditions) -> list[Stretch] | None:
        """A device's lines of the trace, cut where it begins again."""
        if self._trace is None:
            return None
        end_s = self._fleet.trace_repeats_h * HOUR_S or math.inf
        lines = self._trace[number % len(self._trace)]
        return [_fitted(line, end_s, usual) for line in lines if line.from_s < end_s]


def _agent_version(shares: Mapping[str, float], rng: np.random.Generator) -> str | None:
    return str(rng.choice(list(shares), p=list(shares.values()))) if shares else None


def _fitted(line: TracedStretch, end_s: float, usual: Conditions) -> Stretch:
    """A line, with the device's own speed where it says nothing."""
    return Stretch(line.from_s, min(line.to_s, end_s), replace(usual, **line.given))
