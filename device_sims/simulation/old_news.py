"""What was announced some versions ago, for devices that are to be stale."""

from collections import deque

import numpy as np

from wire.messages import Announcement

__all__ = ["OldNews"]


class OldNews:
    """Remembers announcements.

    Args:
        low: least versions that a device is to be behind.
        high: most.
        rng: draws how many.
    """

    def __init__(self, low: int, high: int, rng: np.random.Generator) -> None:
        self._low, self._high, self._rng = low, high, rng
        self._heard = deque[tuple[int, bytes]](maxlen=high + 1)

    def announced(self, payload: bytes) -> None:
        """This was announced."""
        version = Announcement.decode(payload).version
        if not self._heard or version > self._heard[-1][0]:
            self._heard.append((version, payload))

    def draw(self) -> bytes | None:
        """The newest announcement that is old enough, or the oldest; None before the first."""
        if not self._heard:
            return None
        wanted = self._heard[-1][0] - int(self._rng.integers(self._low, self._high + 1))
        fitting = [payload for version, payload in self._heard if version <= wanted]
        return fitting[-1] if fitting else self._heard[0][1]
