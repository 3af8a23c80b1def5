"""Full disks: for a while every write of whatever holds the wrapped storage is refused."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_agent.errors import StoreError

__all__ = ["Disk", "NoSpaceError", "Shortage"]


class NoSpaceError(StoreError):
    """A device's disk is full, for the scenario says so."""

    def __init__(self) -> None:
        super().__init__("the database failed: database or disk is full (simulated)")


@dataclass(slots=True)
class Shortage:
    """How often disks are full, and for how long; several share it.

    Attributes:
        probability: at each write, that the disk is full from then on; 0 ends what there is.
        mean_s: mean time until it has space again; exponential.
        time: seconds on the clock.
        rng: draws both.
        count: called whenever a disk is full anew.
    """

    probability: float
    mean_s: float
    time: Callable[[], float]
    rng: np.random.Generator
    count: Callable[[], object]


class Disk:
    """One disk.

    Args:
        shortage: how often it is full.
        refusal: makes the error that a write to a full one ends with.
    """

    def __init__(self, shortage: Shortage, refusal: Callable[[], Exception]) -> None:
        self._shortage, self._refusal = shortage, refusal
        self._full_until = -math.inf

    def write(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Carry out a write; raises the refusal if there is no space for it."""
        shortage = self._shortage
        if shortage.probability > 0.0:
            now = shortage.time()
            if now >= self._full_until and shortage.rng.random() < shortage.probability:
                self._full_until = now + shortage.rng.exponential(shortage.mean_s)
                shortage.count()
            if now < self._full_until:
                raise self._refusal()
        return method(*args, **kwargs)
