"""One MQTT connection that stays: made, kept alive and made again by a reactor.

paho does the protocol, the reactor does the waiting. Each attempt has a client of its own, so that
nothing is carried over from a broken connection: what must survive one is in the outbox.
"""

import logging
import random
import selectors
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

from paho.mqtt.client import Client, MQTTMessage, MQTTv5, MQTTv311
from paho.mqtt.enums import MQTTProtocolVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from edge_agent.config import BrokerConfig
from edge_agent.dialing import QOS, Will, dial
from edge_agent.errors import RefusedConnectionError
from edge_agent.reactor import Reactor, Timer
from edge_agent.refusals import explain_connack, explain_dial_error, explain_silence
from edge_agent.tls import tls_context
from wire.topics import subscription_qos

__all__ = ["Connection", "Listener", "Will"]

logger = logging.getLogger(__name__)

HOUSEKEEPING_S = 15.0
ANSWER_WAIT_S = 10.0
# Some brokers do not answer a CONNECT of MQTT 5 at all, and leave the socket open.
FIRST_ANSWER_WAIT_S = 4.0
FAREWELL_S = 2.0
FIRST_RECONNECT_S = 2.0
LONGEST_RECONNECT_S = 120.0
STABLE_S = 30.0
DOUBLINGS = 16
UNSUPPORTED_PROTOCOL = 132
HANGUPS_BEFORE_FALLBACK = 2
PACKET_OVERHEAD_BYTES = 64


class Listener(Protocol):
    """Hears what happens to a connection, on the reactor's thread; must not block."""

    def connected(self) -> None:
        """The broker accepted the connection, and subscriptions are on their way."""

    def disconnected(self) -> None:
        """An accepted connection is gone."""

    def refused(self, error: RefusedConnectionError) -> None:
        """An attempt failed; another one follows."""

    def message(self, topic: str, payload: bytes, *, retained: bool) -> None:
        """A message arrived; a retained one was published before this subscription."""


class Connection:
    """Connects, subscribes, reconnects with full jitter, and says goodbye.

    It speaks MQTT 5, and 3.1.1 with a broker that refuses MQTT 5.

    Args:
        broker: where to connect, and as whom.
        reactor: drives it.
        client_id: the MQTT client id; no two connections to a broker may share one.
        listener: hears what happens.
        subscriptions: asked for anew at every connection; gives topic filters.
        will: the last will, also published by ``stop``; None for no will.

    Raises:
        ConfigError: a TLS file cannot be used.
    """

    def __init__(
        self,
        broker: BrokerConfig,
        *,
        reactor: Reactor,
        client_id: str,
        listener: Listener,
        subscriptions: Callable[[], Sequence[str]],
        will: Will | None = None,
    ) -> None:
        self._broker, self._reactor, self._client_id = broker, reactor, client_id
        self._listener, self._subscriptions, self._will = listener, subscriptions, will
        self._tls = None if broker.tls is None else tls_context(broker.tls)
        self._protocol: MQTTProtocolVersion = MQTTv5
        self._client: Client | None = None
        self._descriptor = -1
        self._accepted = self._stopping = self._outdated = self._falling_back = False
        self._dialing = self._suspended = False
        self._refusal: RefusedConnectionError | None = None
        self._attempts = self._hangups = 0
        self._largest_packet_bytes: int | None = None
        self._farewell: tuple[int, Callable[[], object]] | None = None
        self._timers: dict[str, Timer] = {}

    @property
    def is_accepted(self) -> bool:
        """Whether the broker has accepted it; from any thread."""
        return self._accepted

    def start(self) -> None:
        """Begin to connect, also after ``suspend``; from any thread."""
        self._reactor.call_soon_threadsafe(self._start)

    def suspend(self) -> None:
        """Lose the network: close without a word, and stay so until ``start``; from any thread."""
        self._reactor.call_soon_threadsafe(self._suspend)

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Publish with QoS 1; from any thread. Dropped when not connected."""
        self._reactor.call_soon_threadsafe(lambda: self._publish(topic, payload, retain))

    def stop(self, then: Callable[[], object], *, abruptly: bool = False) -> None:
        """Publish the will, wait for the broker to take it (at most 2 s), and disconnect.

        Args:
            then: called on the reactor's thread when the connection is closed.
            abruptly: without a word, as when the process is killed.
        """
        self._reactor.call_soon_threadsafe(lambda: self._stop(then, abruptly))

    # Connecting

    def _start(self) -> None:
        self._suspended = False
        if self._client is None:
            self._attempts = 0
            self._cancel("dial")
            self._dial()

    def _suspend(self) -> None:
        self._suspended = True
        self._cancel("dial")
        if self._client is not None:
            self._drop()

    def _dial(self) -> None:
        if self._stopping or self._dialing:
            return
        self._refusal, self._falling_back, self._dialing = None, False, True
        work = partial(
            dial,
            self._broker,
            client_id=self._client_id,
            protocol=self._protocol,
            tls=self._tls,
            will=self._will,
        )
        self._reactor.call_blocking(work, self._dialed)

    def _dialed(self, outcome: Client | Exception) -> None:
        self._dialing = False
        if isinstance(outcome, Exception):
            self._retry(explain_dial_error(outcome, self._broker))
            return
        socket: Any = outcome.socket()
        if self._stopping or self._suspended:
            outcome.disconnect()
            if socket is not None:
                socket.close()
            return
        if socket is None:
            # The broker hung up while the first packet was being written.
            self._gone(None)
            return
        self._client, self._descriptor = outcome, socket.fileno()
        self._largest_packet_bytes = None
        outcome.on_connect = self._on_connect
        outcome.on_disconnect = self._on_disconnect
        outcome.on_subscribe = self._on_subscribe
        outcome.on_publish = self._on_publish
        outcome.on_message = self._on_message
        outcome.on_socket_close = self._on_socket_close
        self._reactor.watch(self._descriptor, selectors.EVENT_READ, self._ready)
        wait_s = FIRST_ANSWER_WAIT_S if self._protocol == MQTTv5 else ANSWER_WAIT_S
        self._after("answer", wait_s, self._unanswered)
        self._housekeeping()
        self._flush()

    def _retry(self, error: RefusedConnectionError | None) -> None:
        if self._stopping or self._suspended:
            return
        if error is not None:
            self._listener.refused(error)
        if error is not None and not error.transient:
            longest = LONGEST_RECONNECT_S
        else:
            longest = min(
                FIRST_RECONNECT_S * 2.0 ** min(self._attempts, DOUBLINGS), LONGEST_RECONNECT_S
            )
        self._attempts += 1
        # Full jitter: after an outage, thousands of devices must not come back at once.
        self._after("dial", random.uniform(0.0, longest), self._dial)

    def _fall_back(self) -> None:
        other = MQTTv311 if self._protocol == MQTTv5 else MQTTv5
        logger.info("%s: trying MQTT protocol level %d", self._broker.url, int(other))
        self._protocol, self._hangups = other, 0

    # What the selector and the timers say

    def _ready(self, events: int) -> None:
        try:
            if self._client is not None and events & selectors.EVENT_READ:
                self._client.loop_read()
                # TLS may hold decrypted bytes that no selector reports.
                while self._client is not None and self._pending():
                    self._client.loop_read()
            self._flush()
        except Exception:
            logger.exception("%s: the connection is given up", self._broker.url)
            self._drop()

    def _pending(self) -> int:
        socket: Any = self._client.socket() if self._client else None
        return socket.pending() if self._tls is not None and socket is not None else 0

    def _flush(self) -> None:
        """Write what waits, and ask to be told when the rest can be written."""
        if self._client is not None and self._client.want_write():
            self._client.loop_write()
        if self._client is not None:
            write = selectors.EVENT_WRITE if self._client.want_write() else 0
            self._reactor.rewatch(self._descriptor, selectors.EVENT_READ | write)

    def _housekeeping(self) -> None:
        if self._client is not None:
            self._after("housekeeping", HOUSEKEEPING_S, self._housekeeping)
            self._client.loop_misc()
            self._flush()

    def _after(self, name: str, delay_s: float, call: Callable[[], object]) -> None:
        self._cancel(name)
        self._timers[name] = self._reactor.call_later(delay_s, call)

    def _cancel(self, *names: str) -> None:
        for name in names:
            timer = self._timers.pop(name, None)
            if timer is not None:
                timer.cancel()

    def _drop(self) -> None:
        """Close the socket without a word."""
        self._detach()
        self._gone(None)

    def _unanswered(self) -> None:
        self._hangups = HANGUPS_BEFORE_FALLBACK
        self._drop()

    def _detach(self) -> None:
        client, self._client = self._client, None
        if client is None:
            return
        client.on_disconnect = client.on_socket_close = None
        socket: Any = client.socket()
        if socket is not None:
            self._reactor.unwatch(self._descriptor)
            socket.close()

    # What paho says, always inside one of the calls above

    def _on_connect(
        self,
        client: Client,
        _data: Any,
        _flags: Any,
        reason: ReasonCode,
        properties: Properties | None,
    ) -> None:
        self._cancel("answer")
        if reason.is_failure:
            if reason.value == UNSUPPORTED_PROTOCOL and self._protocol == MQTTv5:
                self._outdated = self._falling_back = True
                self._fall_back()
            else:
                self._refusal = explain_connack(reason, self._broker)
            return
        self._accepted, self._hangups = True, 0
        self._largest_packet_bytes = getattr(properties, "MaximumPacketSize", None)
        self._after("stable", STABLE_S, self._stable)
        filters = [(topic, subscription_qos(topic)) for topic in self._subscriptions()]
        if filters:
            client.subscribe(filters)
        logger.info("connected to %s as %s", self._broker.url, self._client_id)
        self._listener.connected()

    def _on_disconnect(
        self, _client: Client, _data: Any, _flags: Any, reason: ReasonCode, _properties: Any
    ) -> None:
        self._gone(reason)

    def _on_subscribe(
        self, _client: Client, _data: Any, _mid: int, reasons: list[ReasonCode], _properties: Any
    ) -> None:
        for reason in reasons:
            if reason.is_failure:
                logger.error(
                    "%s refuses a subscription of %s: %s; check its access rules",
                    self._broker.url,
                    self._client_id,
                    reason,
                )

    def _on_publish(
        self, _client: Client, _data: Any, mid: int, reason: ReasonCode, _properties: Any
    ) -> None:
        if reason.is_failure:
            logger.error(
                "%s refuses what %s publishes: %s; check its access rules",
                self._broker.url,
                self._client_id,
                reason,
            )
        if self._farewell is not None and mid == self._farewell[0]:
            self._reactor.call_soon_threadsafe(self._close)

    def _on_message(self, _client: Client, _data: Any, message: MQTTMessage) -> None:
        self._listener.message(message.topic, bytes(message.payload), retained=bool(message.retain))

    def _on_socket_close(self, _client: Any, _data: Any, _socket: Any) -> None:
        self._reactor.unwatch(self._descriptor)

    # Being gone

    def _stable(self) -> None:
        self._attempts = 0

    def _gone(self, reason: ReasonCode | None) -> None:
        accepted, self._accepted, self._client = self._accepted, False, None
        self._cancel("answer", "stable", "housekeeping")
        if self._stopping:
            self._close()
            return
        if accepted:
            if not self._suspended:
                logger.warning("%s: connection lost: %s", self._broker.url, reason or "no answer")
            if not self._outdated:
                # Silence may have had other causes than a broker that is too old.
                self._protocol = MQTTv5
            self._listener.disconnected()
            self._retry(None)
            return
        if self._falling_back:
            self._retry(None)
            return
        if self._refusal is None:
            self._hangups += 1
            if self._hangups >= HANGUPS_BEFORE_FALLBACK:
                self._fall_back()
        self._retry(self._refusal or explain_silence(self._broker))

    def _publish(self, topic: str, payload: bytes, retain: bool) -> int | None:
        if self._client is None or not self._accepted:
            return None
        size = len(payload) + len(topic.encode()) + PACKET_OVERHEAD_BYTES
        if self._largest_packet_bytes is not None and size > self._largest_packet_bytes:
            # Sending it would make the broker close the connection, again and again.
            logger.error(
                "a message of %d bytes is over the limit of %s, %d bytes; it is not sent",
                len(payload),
                self._broker.url,
                self._largest_packet_bytes,
            )
            return None
        sent = self._client.publish(topic, payload, QOS, retain)
        self._flush()
        return sent.mid

    def _stop(self, then: Callable[[], object], abruptly: bool) -> None:
        self._stopping = True
        self._cancel("dial")
        self._farewell = (-1, then)
        if abruptly:
            self._detach()
            self._close()
            return
        mid = self._publish(self._will.topic, self._will.payload, True) if self._will else None
        if mid is None:
            self._close()
        else:
            self._farewell = (mid, then)
            self._after("farewell", FAREWELL_S, self._close)

    def _close(self) -> None:
        farewell, self._farewell = self._farewell, None
        if farewell is None:
            return
        self._cancel("farewell", "answer", "stable", "housekeeping")
        if self._client is not None:
            self._client.on_disconnect = None
            self._client.disconnect()
            self._detach()
        farewell[1]()
