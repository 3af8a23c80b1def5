"""The way between a real device and its broker, on which messages are late or never arrive."""

from collections.abc import Callable
from functools import partial
from typing import Any

from device_sims.live.pace import Pace
from device_sims.nature import Conditions
from device_sims.simulation.mishaps import Mishaps
from edge_agent.connection import Connection, Listener
from edge_agent.errors import RefusedConnectionError
from edge_agent.reactor import Reactor
from wire import topics

__all__ = ["Way"]


class Way(Connection):
    """A connection whose link is slow and whose messages suffer what the scenario says.

    That happens between the agent and its MQTT client, so the client and the broker acknowledge
    what they have as ever. What a broker retains, announcements and statuses, is left alone, as in
    a simulation.

    Args:
        mishaps: what goes wrong.
        conditions: of its link at present.
        pace: how fast the scenario's time passes.
        reactor: drives it.
        client_id: the device.
        listener: hears what arrives.
        others: of ``Connection``.
    """

    def __init__(
        self,
        *args: Any,
        mishaps: Mishaps,
        conditions: Callable[[], Conditions],
        pace: Callable[[], Pace],
        reactor: Reactor,
        client_id: str,
        listener: Listener,
        **others: Any,
    ) -> None:
        self._mishaps, self._conditions, self._pace = mishaps, conditions, pace
        self._loop = reactor
        hearer = _Hearer(listener, topics.receipts(client_id), self._receive)
        super().__init__(*args, reactor=reactor, client_id=client_id, listener=hearer, **others)

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """See Connection."""
        publish = partial(super().publish, topic, retain=retain)
        if retain:
            publish(payload)
            return
        for delay_s, arriving in self._mishaps.up(payload, self._conditions()):
            self._later(delay_s, partial(publish, arriving))

    def _receive(self, deliver: Callable[[], object]) -> None:
        delay_s = self._mishaps.down_s(self._conditions())
        if delay_s is not None:
            # Who has lost the connection meanwhile does not get it any more.
            self._later(delay_s, lambda: deliver() if self.is_accepted else None)

    def _later(self, delay_s: float, call: Callable[[], object]) -> None:
        wall_s = self._pace().wall_s(delay_s)
        self._loop.call_soon_threadsafe(lambda: self._loop.call_later(wall_s, call))


class _Hearer:
    """Hears what a connection says, and hands receipts over to the way."""

    def __init__(
        self,
        listener: Listener,
        receipts: str,
        receive: Callable[[Callable[[], object]], object],
    ) -> None:
        self._listener, self._receipts, self._receive = listener, receipts, receive

    def connected(self) -> None:
        self._listener.connected()

    def disconnected(self) -> None:
        self._listener.disconnected()

    def refused(self, error: RefusedConnectionError) -> None:
        self._listener.refused(error)

    def message(self, topic: str, payload: bytes, *, retained: bool) -> None:
        deliver = partial(self._listener.message, topic, payload, retained=retained)
        if topic == self._receipts:
            self._receive(deliver)
        else:
            deliver()
