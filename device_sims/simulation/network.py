"""The way between devices and the aggregator: a broker that keeps what is not acknowledged."""

import math
from collections.abc import Callable
from functools import partial
from itertools import count

from aggregator.reception import Inbound
from device_sims.nature import Conditions
from device_sims.simulation.mishaps import Mishaps
from device_sims.simulation.virtual_time import VirtualTime
from wire import topics

__all__ = ["Network"]

Deliver = Callable[[str, bytes], object]


class Network:
    """Delivers messages late, twice, damaged or never, as the scenario says.

    Args:
        time: the clock.
        mishaps: what goes wrong.
        together_s: what arrives within so many seconds reaches the aggregator together.
    """

    def __init__(self, time: VirtualTime, mishaps: Mishaps, together_s: float) -> None:
        self._time, self._mishaps, self._together_s = time, mishaps, together_s
        self.retained: dict[str, bytes] = {}
        self.on_sent: Callable[[str, bytes], object] = lambda _topic, _payload: None
        self.to_aggregator: Callable[[list[Inbound]], object] = lambda _messages: None
        self.on_announced: Callable[[], object] = lambda: None
        self._receipts: dict[str, tuple[Deliver, Conditions]] = {}
        self._queue: dict[int, Inbound] = {}
        self._handed_over: dict[int, Inbound] = {}
        self._numbers = count()
        self._due = False
        self._restarts = 0
        self._up_at = -math.inf

    @property
    def waiting(self) -> int:
        """Messages that the broker holds for the aggregator."""
        return len(self._queue)

    @property
    def down_s(self) -> float:
        """Seconds until the broker can be reached; 0 if it can be."""
        return max(0.0, self._up_at - self._time())

    def restart(self, down_s: float) -> None:
        """The broker goes, and comes back after a while.

        What is on its way to it or from it is lost, and so is what it retained. What waited for the
        aggregator is on its disk, and what it handed over last is handed over again, for it does
        not know that it was acknowledged. The connections to it are not its business here.
        """
        self._restarts += 1
        self._up_at = self._time() + down_s
        self._receipts.clear()
        self.retained.clear()
        again = {n: known for n, known in self._handed_over.items() if n not in self._queue}
        self._queue = again | self._queue
        self._time.after(down_s, self.hand_over)

    # From devices

    def connect(self, device: str, deliver: Deliver, link: Conditions) -> None:
        """From now on receipts for a device go there."""
        self._receipts[topics.receipts(device)] = deliver, link

    def disconnect(self, device: str) -> None:
        """Receipts for the device are lost from now on."""
        self._receipts.pop(topics.receipts(device), None)

    def send(self, topic: str, payload: bytes, link: Conditions) -> None:
        """A device publishes."""
        self.on_sent(topic, payload)
        for delay_s, arriving in self._mishaps.up(payload, link):
            self._later(delay_s, partial(self._arrived, topic, arriving))

    # To devices

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """The aggregator publishes."""
        if retain:
            self.retained[topic] = payload
            self.on_announced()
            return
        if topic in self._receipts:
            _, link = self._receipts[topic]
            delay_s = self._mishaps.down_s(link)
            if delay_s is not None:
                self._later(delay_s, lambda: self._answered(topic, payload))

    # To the aggregator

    def hand_over(self) -> None:
        """Give the aggregator what waits; it acknowledges what it is done with."""
        self._due = False
        if self._queue and self.down_s == 0.0:
            self._handed_over = dict(self._queue)
            self.to_aggregator(list(self._queue.values()))

    def hand_over_in(self, delay_s: float) -> None:
        """Give the aggregator what waits in a while, all of it together."""
        if not self._due:
            self._due = True
            self._time.after(delay_s, self.hand_over)

    def _later(self, delay_s: float, call: Callable[[], object]) -> None:
        """Have something arrive, unless the broker is restarted before."""
        restarts = self._restarts
        self._time.after(delay_s, lambda: call() if restarts == self._restarts else None)

    def _arrived(self, topic: str, payload: bytes) -> None:
        number = next(self._numbers)

        def acknowledge() -> None:
            self._queue.pop(number, None)

        self._queue[number] = Inbound(topic, payload, acknowledge)
        self.hand_over_in(self._together_s)

    def _answered(self, topic: str, payload: bytes) -> None:
        if topic in self._receipts:
            deliver, _ = self._receipts[topic]
            deliver(topic, payload)
