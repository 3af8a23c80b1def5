"""The link to the broker: one paho client, on a thread and a selector of its own.

paho's own loop waits with ``select``, which fails once the process has a thousand descriptors open;
an aggregator that serves a fleet its parameters gets there. So the loop is here, and it also stops
reading while the engine's mailbox is full: the broker keeps what is not read. What is published
waits here until the broker may have more in flight: paho would take no notice of what it said.

Messages are acknowledged by the engine, when they are durable. A broker that says "subscribed" may
still deliver nothing (a rule of its ACL, a feature it lacks), so after every connection a self-test
message must come back through the subscription that the updates come through. Where several share
the subscription each message comes to one of them, so the self-test is sent until it has come here.
"""

import logging
import random
import secrets
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from aggregator.broker import Broker
from aggregator.portions import PortionClient, Portions
from aggregator.reception import Inbound
from wire import topics
from wire.errors import MessageError

__all__ = ["Link"]

KEEPALIVE_S = 30
SESSION_EXPIRY_S = 86_400
RECEIVE_MAXIMUM = SEND_MAXIMUM = 1_000
SELF_TEST_TIMEOUT_S = 5.0
SHARED_SELF_TEST_EVERY_S = 0.1
ANSWER_TIMEOUT_S = 3.0
FLUSH_TIMEOUT_S = 2.0
SELECT_TIMEOUT_S = 1.0
BACK_OFF_S = (0.2, 10.0)
SELF_TEST = b"rivulet self-test "
SELF_TEST_DEVICE = "aggregator-self-test"
EVERYTHING = (topics.ALL_UPDATES, topics.ALL_STATUSES)
UNSUPPORTED_PROTOCOL, BAD_CREDENTIALS, NOT_AUTHORIZED = 132, 134, 135

_log = logging.getLogger(__name__)


class Link:
    """Keeps a connection to the broker, for as long as it takes.

    It speaks MQTT 5, and 3.1.1 to a broker that does not. The session outlives the connection, so
    that the broker keeps updates while the aggregator is away, if it can. That of one who shares a
    subscription ends with the connection: a broker goes on giving a session its share while nobody
    is there to read it.

    Args:
        broker: where to.
        deliver: takes each message; called on the link's thread, must not wait.
        has_room: whether ``deliver`` may be called for now; call ``wake`` when it changes.
        on_ready: called each time a connection has passed its self-test.
        on_refused: called with a sentence when the broker refuses the credentials of the first
            connection; later refusals are only tried again.
        share: name of the group that shares the subscription; None has it alone.
        listen: whether to subscribe to anything; who does not is ready once it is connected.

    Raises:
        BrokerError: the TLS files are not usable.
    """

    def __init__(
        self,
        broker: Broker,
        *,
        deliver: Callable[[Inbound], None],
        has_room: Callable[[], bool],
        on_ready: Callable[[], None],
        on_refused: Callable[[str], None],
        share: str | None = None,
        listen: bool = True,
    ) -> None:
        self._broker = broker
        prefix = "" if share is None else f"$share/{share}/"
        self._subscriptions = [(prefix + topic, 1) for topic in EVERYTHING if listen]
        self._shared, self._keeps_session = share is not None, listen and share is None
        self._tls = broker.tls_context()
        self._deliver, self._has_room = deliver, has_room
        self._on_ready, self._on_refused = on_ready, on_refused
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mqtt", daemon=True)
        self._wake_read, self._wake_write = socket.socketpair()
        self._wake_read.setblocking(False)
        self._wake_pending = False
        self._outgoing: deque[tuple[str, bytes, bool]] = deque()
        self._in_flight, self._most_in_flight = 0, SEND_MAXIMUM
        self._epoch = 0
        self._ever_connected = False
        self._answered = self._accepted = False
        self._self_test = b""
        self._self_test_at = self._self_test_due = float("inf")
        self._client = self._make_client(MQTTProtocolVersion.MQTTv5)
        self.connected = False
        self.ready = False
        self.problem: str | None = "not connected to the broker yet"

    def start(self) -> None:
        """Start connecting."""
        self._thread.start()

    def stop(self) -> None:
        """Send what is queued, for at most two seconds, and say goodbye to the broker."""
        self._stopping.set()
        self.wake()
        if self._thread.ident is not None:
            self._thread.join()
        self._wake_pending = True  # Nobody is left to wake.
        self._wake_read.close()
        self._wake_write.close()

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Publish at QoS 1, now or when there is a connection again; from any thread."""
        self._outgoing.append((topic, payload, retain))
        self.wake()

    def wake(self) -> None:
        """Have the link look again at what it may read and should write; from any thread."""
        if not self._wake_pending:
            self._wake_pending = True
            self._wake_write.send(b"\0")

    def _run(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            self._answered = self._accepted = False
            try:
                self._connect_once()
            except Exception:
                _log.exception("the connection to %s failed", self._broker)
            failures = 0 if self._accepted else failures + 1
            self._stopping.wait(_back_off(failures))

    def _connect_once(self) -> None:
        """One connection, from first to last byte."""
        try:
            self._client.connect(
                self._broker.host,
                self._broker.port,
                KEEPALIVE_S,
                **self._session_options(),
            )
        except (OSError, ValueError) as error:
            self._trouble(f"cannot reach the broker at {self._broker}: {error}")
            return
        self._epoch += 1
        self._serve(self._client)
        self.connected = self.ready = False
        if not self._answered and not self._stopping.is_set():
            self._change_protocol()

    def _serve(self, client: Client) -> None:
        connection: Any = client.socket()
        with selectors.DefaultSelector() as selector:
            selector.register(self._wake_read, selectors.EVENT_READ)
            watched, deadline = 0, time.monotonic() + ANSWER_TIMEOUT_S
            while client.socket() is not None and not self._stopping.is_set():
                if not self._answered and time.monotonic() > deadline:
                    break
                self._write(client, connection)
                wanted = selectors.EVENT_READ if self._has_room() else 0
                wanted |= selectors.EVENT_WRITE if connection.unsent else 0
                _watch(selector, connection, watched, wanted)
                watched = wanted
                unread = wanted & selectors.EVENT_READ and connection.unread
                ready = self._wait(selector, 0.0 if unread else self._patience_s())
                if ready & selectors.EVENT_READ or unread:
                    client.loop_read()
                client.loop_misc()
                self._check_self_test()
        if client.socket() is not None:
            self._publish_waiting(client, len(self._outgoing))
            _say_goodbye(client, connection)

    def _write(self, client: Client, connection: Portions) -> None:
        if self.connected:
            self._publish_waiting(client, self._most_in_flight - self._in_flight)
        if client.want_write():
            client.loop_write()
        # A connection that is gone is noticed where it is read.
        with suppress(OSError):
            connection.flush()

    def _publish_waiting(self, client: Client, most: int) -> None:
        for _ in range(min(most, len(self._outgoing))):
            topic, payload, retain = self._outgoing.popleft()
            self._in_flight += 1
            client.publish(topic, payload, qos=1, retain=retain)

    def _patience_s(self) -> float:
        return min(SELECT_TIMEOUT_S, max(0.0, self._self_test_due - time.monotonic()))

    def _wait(self, selector: selectors.BaseSelector, timeout_s: float) -> int:
        ready = 0
        for key, events in selector.select(timeout_s):
            if key.fileobj is self._wake_read:
                self._wake_read.recv(64)
                self._wake_pending = False
            else:
                ready = events
        return ready

    def _make_client(self, protocol: MQTTProtocolVersion) -> Client:
        five = protocol == MQTTProtocolVersion.MQTTv5
        client = PortionClient(
            CallbackAPIVersion.VERSION2,
            client_id=self._broker.client_id,
            clean_session=None if five else not self._keeps_session,
            protocol=protocol,
            manual_ack=True,
        )
        if self._broker.username is not None:
            client.username_pw_set(self._broker.username, self._broker.password)
        if self._tls is not None:
            client.tls_set_context(self._tls)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        client.max_inflight_messages_set(0)
        # Without this callback paho would write to the socket from whichever thread publishes.
        client.on_socket_register_write = lambda *_: None
        return client

    def _session_options(self) -> dict[str, Any]:
        if self._client.protocol != MQTTProtocolVersion.MQTTv5:
            return {}
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = SESSION_EXPIRY_S if self._keeps_session else 0
        properties.ReceiveMaximum = RECEIVE_MAXIMUM
        return {"clean_start": not self._keeps_session, "properties": properties}

    def _change_protocol(self) -> None:
        # Brokers of MQTT 3.1.1 refuse a client of MQTT 5, or hang up, or never answer.
        five = self._client.protocol == MQTTProtocolVersion.MQTTv5
        self._in_flight = 0
        other = MQTTProtocolVersion.MQTTv311 if five else MQTTProtocolVersion.MQTTv5
        self._trouble(f"{self._broker} does not answer to MQTT {'5' if five else '3.1.1'}")
        self._client = self._make_client(other)

    def _on_connect(
        self,
        client: Client,
        _userdata: Any,
        flags: ConnectFlags,
        reason: ReasonCode,
        properties: Properties | None,
    ) -> None:
        if reason.is_failure:
            self._refused(reason)
            return
        allowed = getattr(properties, "ReceiveMaximum", SEND_MAXIMUM)
        self._most_in_flight = min(allowed, SEND_MAXIMUM)
        self._answered = self._accepted = self._ever_connected = self.connected = True
        self._self_test_at = self._self_test_due = float("inf")
        self.problem = "the self-test message has not come back from the broker yet"
        five = client.protocol == MQTTProtocolVersion.MQTTv5
        session = "resumed" if flags.session_present else "new"
        _log.info("%s speaks MQTT %s; %s session", self._broker, "5" if five else "3.1.1", session)
        if self._subscriptions:
            client.subscribe(self._subscriptions)
        else:
            self._become_ready()

    def _refused(self, reason: ReasonCode) -> None:
        if reason.value == UNSUPPORTED_PROTOCOL:
            return
        self._answered = True
        self._trouble(f"the broker at {self._broker} refuses the connection: {reason}")
        if reason.value in (BAD_CREDENTIALS, NOT_AUTHORIZED) and not self._ever_connected:
            self._on_refused(
                f"the broker at {self._broker} refuses the user name or password ({reason}); "
                "check broker, username and password"
            )

    def _on_disconnect(
        self,
        _client: Client,
        _userdata: Any,
        _flags: DisconnectFlags,
        reason: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        if self.connected and not self._stopping.is_set():
            self._trouble(f"the connection to {self._broker} ended: {reason}")

    def _on_subscribe(
        self,
        _client: Client,
        _userdata: Any,
        _mid: int,
        reasons: list[ReasonCode],
        _properties: Properties | None,
    ) -> None:
        answers = zip(self._subscriptions, reasons, strict=False)
        refused = [topic for (topic, _), reason in answers if reason.is_failure]
        if refused:
            self._trouble(f"the broker refuses the subscription to {', '.join(refused)}")
        else:
            self._send_self_test()

    def _on_message(self, client: Client, _userdata: Any, message: MQTTMessage) -> None:
        payload = bytes(message.payload)
        if payload.startswith(SELF_TEST):
            client.ack(message.mid, message.qos)
            self._self_test_arrived(payload)
            return
        epoch, mid, qos = self._epoch, message.mid, message.qos

        def acknowledge() -> None:
            # A new connection may use the same id for another message.
            if qos > 0 and epoch == self._epoch:
                client.ack(mid, qos)
                self.wake()

        self._deliver(Inbound(message.topic, payload, acknowledge))

    def _on_publish(self, *_: Any) -> None:
        self._in_flight -= 1

    def _send_self_test(self) -> None:
        self._self_test = SELF_TEST + secrets.token_hex(16).encode()
        self._self_test_at = time.monotonic()
        self._repeat_self_test()

    def _repeat_self_test(self) -> None:
        self.publish(self._self_test_topic(), self._self_test)
        if self._shared:
            self._self_test_due = time.monotonic() + SHARED_SELF_TEST_EVERY_S

    def _self_test_topic(self) -> str:
        # A broker that lets a user publish only under its own name must let this through too.
        try:
            return topics.updates(topics.check_device_id(self._broker.username or SELF_TEST_DEVICE))
        except MessageError:
            return topics.updates(SELF_TEST_DEVICE)

    def _self_test_arrived(self, payload: bytes) -> None:
        if payload == self._self_test and not self.ready:
            _log.info("updates published at %s arrive here", self._broker)
            self._become_ready()

    def _become_ready(self) -> None:
        self._self_test_at = self._self_test_due = float("inf")
        self.ready, self.problem = True, None
        self._on_ready()

    def _check_self_test(self) -> None:
        if time.monotonic() - self._self_test_at > SELF_TEST_TIMEOUT_S:
            self._trouble(
                f"a message published on {self._self_test_topic()} does not come back; "
                "the broker's ACL must let the aggregator write there and read "
                f"{self._subscriptions[0][0]}"
            )
            self._send_self_test()
        elif time.monotonic() >= self._self_test_due:
            self._repeat_self_test()

    def _trouble(self, problem: str) -> None:
        self.problem = problem
        _log.warning("%s", problem)


def _watch(selector: selectors.BaseSelector, connection: Any, watched: int, wanted: int) -> None:
    if wanted == watched:
        return
    if not watched:
        selector.register(connection, wanted)
    elif not wanted:
        selector.unregister(connection)
    else:
        selector.modify(connection, wanted)


def _back_off(failures: int) -> float:
    """Full jitter, so that many clients do not return to a restarted broker at once."""
    shortest, longest = BACK_OFF_S
    return random.uniform(shortest / 2, min(longest, shortest * 2.0 ** min(failures, 16)))


def _say_goodbye(client: Client, connection: Portions) -> None:
    deadline = time.monotonic() + FLUSH_TIMEOUT_S
    client.disconnect()
    with selectors.DefaultSelector() as selector:
        selector.register(connection, selectors.EVENT_WRITE)
        while client.want_write() and client.socket() is not None and time.monotonic() < deadline:
            selector.select(FLUSH_TIMEOUT_S)
            client.loop_write()
