"""The way between devices and the aggregator: a broker that keeps what is not acknowledged."""

from collections import Counter
from collections.abc import Callable

import numpy as np

from aggregator.reception import Inbound
from device_sims.scenario import Faults, FleetBehaviour
from device_sims.simulation.virtual_time import VirtualTime
from wire import topics

__all__ = ["Network"]

BATCH_S = 0.05
"""What arrives within so many seconds reaches the aggregator together."""

Deliver = Callable[[str, bytes], object]


class Network:
    """Delivers messages late, twice, damaged or never, as the scenario says.

    Args:
        time: the clock.
        behaviour: latency and bandwidth.
        faults: what goes wrong; may be replaced while it runs.
        rng: draws all of it.
        happened: counts faults by kind.
    """

    def __init__(
        self,
        time: VirtualTime,
        behaviour: FleetBehaviour,
        faults: Faults,
        rng: np.random.Generator,
        happened: Counter[str],
    ) -> None:
        self._time, self._behaviour, self._rng, self._happened = time, behaviour, rng, happened
        self.faults = faults
        self.retained: dict[str, bytes] = {}
        self.on_sent: Callable[[str, bytes], object] = lambda _topic, _payload: None
        self.to_aggregator: Callable[[list[Inbound]], object] = lambda _messages: None
        self.on_announced: Callable[[], object] = lambda: None
        self._receipts: dict[str, Deliver] = {}
        self._queue: list[Inbound] = []
        self._due = False

    @property
    def waiting(self) -> int:
        """Messages that the broker holds for the aggregator."""
        return len(self._queue)

    # From devices

    def connect(self, device: str, deliver: Deliver) -> None:
        """From now on receipts for a device go there."""
        self._receipts[topics.receipts(device)] = deliver

    def disconnect(self, device: str) -> None:
        """Receipts for the device are lost from now on."""
        self._receipts.pop(topics.receipts(device), None)

    def send(self, topic: str, payload: bytes) -> None:
        """A device publishes."""
        self.on_sent(topic, payload)
        if self._strikes("lost"):
            return
        if self._strikes("corrupted"):
            payload = _damaged(payload, self._rng)
        copies = 2 if self._strikes("duplicated") else 1
        for _ in range(copies):
            slow_s = len(payload) / self._behaviour.up_bytes_s
            self._time.after(self._delay_s() + slow_s, lambda: self._arrived(topic, payload))

    # To devices

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """The aggregator publishes."""
        if retain:
            self.retained[topic] = payload
            self.on_announced()
            return
        if topic in self._receipts and not self._strikes("lost"):
            self._time.after(self._delay_s(), lambda: self._answered(topic, payload))

    # To the aggregator

    def hand_over(self) -> None:
        """Give the aggregator what waits; it acknowledges what it is done with."""
        self._due = False
        if self._queue:
            self.to_aggregator(list(self._queue))

    def _arrived(self, topic: str, payload: bytes) -> None:
        message: Inbound

        def acknowledge() -> None:
            self._queue.remove(message)

        message = Inbound(topic, payload, acknowledge)
        self._queue.append(message)
        if not self._due:
            self._due = True
            self._time.after(BATCH_S, self.hand_over)

    def _answered(self, topic: str, payload: bytes) -> None:
        deliver = self._receipts.get(topic)
        if deliver is not None:
            deliver(topic, payload)

    def _delay_s(self) -> float:
        delay_s = float(self._rng.exponential(self._behaviour.latency_s))
        if self._strikes("delayed"):
            delay_s += float(self._rng.exponential(self.faults.delay_s))
        return delay_s

    def _strikes(self, kind: str) -> bool:
        probability = getattr(self.faults, kind)
        strikes = probability > 0.0 and bool(self._rng.random() < probability)
        self._happened[kind] += strikes
        return strikes


def _damaged(payload: bytes, rng: np.random.Generator) -> bytes:
    raw = bytearray(payload)
    raw[int(rng.integers(len(raw)))] ^= 1 << int(rng.integers(8))
    return bytes(raw)
