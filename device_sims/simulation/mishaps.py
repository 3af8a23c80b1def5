"""What goes wrong with messages on their way, drawn one after the other."""

from collections import Counter

import numpy as np

from device_sims.scenario import Faults

__all__ = ["Mishaps"]


class Mishaps:
    """Draws for each message what becomes of it.

    Args:
        faults: how often something goes wrong; may be replaced at any time.
        rng: draws all of it.
        happened: counts what went wrong, by kind.
    """

    def __init__(self, faults: Faults, rng: np.random.Generator, happened: Counter[str]) -> None:
        self.faults, self._rng, self._happened = faults, rng, happened

    def strikes(self, kind: str) -> bool:
        """Whether a fault happens, by the name of its probability."""
        probability = getattr(self.faults, kind)
        strikes = probability > 0.0 and bool(self._rng.random() < probability)
        self._happened[kind] += strikes
        return strikes

    def delay_s(self, latency_s: float) -> float:
        """How long a message takes on a link of this mean latency; exponential."""
        delay_s = float(self._rng.exponential(latency_s))
        if self.strikes("delayed"):
            delay_s += float(self._rng.exponential(self.faults.delay_s))
        return delay_s

    def damaged(self, payload: bytes) -> bytes:
        """A message with one bit flipped."""
        raw = bytearray(payload)
        raw[int(self._rng.integers(len(raw)))] ^= 1 << int(self._rng.integers(8))
        return bytes(raw)
