"""What goes wrong with messages on their way, drawn one after the other."""

from collections import Counter
from collections.abc import Iterator

import numpy as np

from device_sims.nature import Conditions
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

    def up(self, payload: bytes, link: Conditions) -> Iterator[tuple[float, bytes]]:
        """What arrives of a message to the aggregator: after how many seconds, and what it says."""
        if self.strikes("lost"):
            return
        if self.strikes("corrupted"):
            payload = self._damaged(payload)
        slow_s = len(payload) / link.up_bytes_s
        for _ in range(2 if self.strikes("duplicated") else 1):
            yield self._delay_s(link) + slow_s, payload

    def down_s(self, link: Conditions) -> float | None:
        """After how many seconds an answer to a device arrives; None for never."""
        return None if self.strikes("lost") else self._delay_s(link)

    def _delay_s(self, link: Conditions) -> float:
        delay_s = float(self._rng.exponential(link.latency_s))
        if self.strikes("delayed"):
            delay_s += float(self._rng.exponential(self.faults.delay_s))
        return delay_s

    def _damaged(self, payload: bytes) -> bytes:
        raw = bytearray(payload)
        raw[int(self._rng.integers(len(raw)))] ^= 1 << int(self._rng.integers(8))
        return bytes(raw)
