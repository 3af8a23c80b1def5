"""Crashes between any two writes: a power cut for whatever holds the wrapped storage."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

__all__ = ["Breaker", "PowerCut", "breaking"]


class PowerCut(BaseException):
    """The process is gone: nothing in it may catch this."""


class Breaker:
    """Cuts the power at random.

    Args:
        probability: at each write, before it or after it.
        rng: decides.
        count: called at each cut.
    """

    def __init__(
        self, probability: float, rng: np.random.Generator, count: Callable[[], object]
    ) -> None:
        self.probability, self._rng, self._count = probability, rng, count

    def write(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Carry out a write, or die at it."""
        dies = self.probability > 0.0 and self._rng.random() < self.probability
        before = dies and self._rng.random() < 0.5
        if before:
            self._die()
        result = method(*args, **kwargs)
        if dies:
            self._die()
        return result

    def _die(self) -> None:
        self._count()
        raise PowerCut


def breaking(storage: Any, breaker: Breaker, writes: tuple[str, ...]) -> Any:
    """The same storage, at whose writes the power may be cut."""
    return _Breaking(storage, breaker, writes)


class _Breaking:
    def __init__(self, storage: Any, breaker: Breaker, writes: tuple[str, ...]) -> None:
        self._storage, self._breaker, self._writes = storage, breaker, writes

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            # What is being unpickled has no storage yet.
            raise AttributeError(name)
        found = getattr(self._storage, name)
        return partial(self._breaker.write, found) if name in self._writes else found
