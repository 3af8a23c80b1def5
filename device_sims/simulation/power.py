"""Crashes between any two writes: a power cut for whatever holds the wrapped storage."""

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import numpy as np

__all__ = ["Breaker", "Guard", "Guarded", "PowerCut", "breaking"]


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


class Guard(Protocol):
    """Stands before every write."""

    def write(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Carry out a write, or not."""


def breaking(storage: Any, guard: Guard, writes: tuple[str, ...]) -> Any:
    """The same storage, at whose writes something may happen."""
    return Guarded(storage, guard, writes)


class Guarded:
    """What ``breaking`` makes. All but what ends with an underscore is the storage's."""

    def __init__(self, storage: Any, guard: Guard, writes: tuple[str, ...]) -> None:
        self.storage_, self.guard_, self.writes_ = storage, guard, writes

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        found = getattr(self.storage_, name)
        return partial(self.guard_.write, found) if name in self.writes_ else found
