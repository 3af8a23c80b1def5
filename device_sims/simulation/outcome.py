"""What came of a simulation."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from device_sims.simulation.audit import Audit

__all__ = ["Group", "Measured", "Outcome"]


@dataclass(frozen=True, slots=True)
class Measured:
    """Quality at a moment, and what it took until then.

    Without replay the test items are ranked: the latest of each device. With replay it is whatever
    each device's user takes next.

    Attributes:
        hours: virtual time since the start.
        version: the newest one that devices were told about.
        updates: made so far.
        bytes_up: sent so far, every attempt counted.
        bytes_down: downloaded so far.
        energy_j: joules spent by all devices so far; see ``device_sims.nature.energy``.
        examined: devices whose item was ranked.
        hr_at_10: share of devices whose item is among the first ten.
        ndcg_at_10: with its rank.
        validation_ndcg_at_10: the same on the validation items, by which a moment is picked; None
            with replay, where nothing is held out for that.
    """

    hours: float
    version: int
    updates: int
    bytes_up: int
    bytes_down: int
    energy_j: float
    examined: int
    hr_at_10: float
    ndcg_at_10: float
    validation_ndcg_at_10: float | None


@dataclass(frozen=True, slots=True)
class Group:
    """A part of the fleet: a third by the time that a local update takes, or a class.

    Attributes:
        devices: how many.
        updates: that they made.
        hr_at_10: share of them whose item is among the first ten at the end.
        ndcg_at_10: with its rank.
    """

    devices: int
    updates: int
    hr_at_10: float
    ndcg_at_10: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a simulation.

    Attributes:
        scenario: its name.
        seed: of everything drawn.
        devices: how many there are.
        quality: over time; the last one after everything was delivered.
        groups: the thirds ``fast``, ``middle`` and ``slow`` of the devices by their speed, the
            thirds ``light``, ``medium`` and ``heavy`` by how many interactions their users have,
            and each class where there are some; that of a third's name is ``NAME (class)``.
        exposure: share of users to whom the promoted item is shown at the end (ER@10); None where
            the scenario's attackers promote none.
        staleness: how many merged updates had which staleness.
        refused: how many updates were refused for good, by why.
        faults: how many happened, by kind.
        audit: what must hold.
        model: digest of the newest version.
    """

    scenario: str
    seed: int
    devices: int
    quality: tuple[Measured, ...]
    groups: Mapping[str, Group]
    exposure: float | None
    staleness: Mapping[int, int]
    refused: Mapping[str, int]
    faults: Mapping[str, int]
    audit: Audit
    model: str

    def to_dict(self) -> dict[str, Any]:
        """As a JSON-ready map, with its own digest: equal runs have equal ones."""
        values = {**asdict(self), "staleness": sorted(self.staleness.items())}
        raw = json.dumps(values, sort_keys=True).encode()
        return {**values, "digest": hashlib.sha256(raw).hexdigest()}
