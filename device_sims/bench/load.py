"""A fleet's worth of updates from one process: published, resent until answered, and timed.

The updates are real encoded ones, of many devices over a few connections. Their base version is
the newest that a receipt has told of, as a fleet's would be.
"""

import select
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray
from paho.mqtt.client import MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from aggregator.portions import PortionClient
from device_sims.brokers import MosquittoBroker
from wire import topics
from wire.bundle import read_bundle
from wire.codec import encode_delta
from wire.delta import RowBlock, Tensor
from wire.manifest import ParameterSpec, Role
from wire.messages import Outcome, Receipt, Update
from wire.policy import CodecPolicy

__all__ = ["USERS", "Load", "Sent", "count_only", "let_in", "make_payload", "send"]

READER, COUNTER, WRITERS = "load-reader", "load-counter", ("load-writer-0", "load-writer-1")
USERS = (READER, COUNTER, *WRITERS)
"""At the broker: one for each connection, for a user's name is also its session's."""
PAYLOADS, ROWS = 200, 34
IN_FLIGHT = 500
RESEND_AFTER_S = 5.0
STEP_S = 0.05
CONNECT_DEADLINE_S = 20.0
DRAIN_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What is sent.

    Attributes:
        broker: its URL.
        password: of each of ``USERS``.
        bundle: folder of the task's bundle.
        fleet: begins the names of the devices.
        updates: how many, unless it is stopped before.
        devices: how many devices they come from, in turn.
        window: most that may be without a receipt; 0 sends without looking at receipts.
        rate: updates a second; None sends as fast as the window lets.
    """

    broker: str
    password: str
    bundle: Path
    fleet: str
    updates: int
    devices: int = 2_000
    window: int = 2_000
    rate: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What became of it.

    Attributes:
        outcomes: how many first receipts said what; a refusal by its slug.
        sequences: for each device, how many updates it sent: numbers 1 to this.
        seconds: from the first publish to the last receipt.
        latencies_s: float64 [updates], from the time an update was due to its first receipt.
        cpu_s: processor time of this process.
        size_bytes: of a message, on average.
    """

    outcomes: Mapping[str, int]
    sequences: Mapping[str, int]
    seconds: float
    latencies_s: NDArray[np.float64]
    cpu_s: float
    size_bytes: float


def make_payload(specs: Sequence[ParameterSpec], rng: np.random.Generator) -> bytes:
    """One user's delta: nearly of rank one, as those of matrix factorisation are."""
    delta: dict[str, Tensor] = {}
    for spec in specs:
        height, width = spec.shape[0], int(np.prod(spec.shape[1:]))
        count = min(ROWS, height) if spec.role is Role.ROWS else height
        rows = np.sort(rng.choice(height, count, replace=False)).astype(np.int64)
        learned = rng.normal(size=(count, 1)) * rng.normal(size=(1, width))
        values = (0.01 * learned + 0.004 * rng.normal(size=(count, width))).astype(np.float32)
        table = spec.role is Role.ROWS
        delta[spec.name] = RowBlock(rows, values) if table else values.reshape(spec.shape)
    return encode_delta(delta, specs, CodecPolicy())


def let_in(broker: MosquittoBroker, directory: Path) -> None:
    """Let ``USERS``, whom the broker knows already, speak as any device."""
    with (directory / "acl").open("a", encoding="utf-8") as acl:
        acl.writelines(f"\nuser {user}\ntopic readwrite {topics.ROOT}/#\n" for user in USERS)
    broker.restart()


def send(load: Load, enough: threading.Event | None = None) -> Sent:
    """Publish, and wait until every update has its receipt.

    Args:
        load: what to send.
        enough: when set, no more updates are made.

    Raises:
        TimeoutError: no receipt came for two minutes.
    """
    sender = _Sender(load)
    sender.run(enough or threading.Event())
    return sender.result()


def count_only(load: Load, ready: Any, counted: Any) -> None:
    """Subscribe as the aggregator does, acknowledge and count; a process of its own.

    Args:
        load: which broker, and how many messages.
        ready: an event to set when the subscription stands.
        counted: a connection that is sent the seconds from the first message to the last.
    """
    times: list[float] = []

    def on_message(*_: object) -> None:
        times.append(time.monotonic())

    client = _client(load, COUNTER)
    client.on_message = on_message
    client.on_subscribe = lambda *_: ready.set()
    client.subscribe([(topics.ALL_UPDATES, 1)])
    while len(times) < load.updates:
        _pump([client])
    counted.send(times[-1] - times[0])


class _Sender:
    def __init__(self, load: Load) -> None:
        self._load = load
        self._bundle = read_bundle(load.bundle)
        rng = np.random.default_rng(1)
        specs = self._bundle.manifest.federated
        self._payloads = [make_payload(specs, rng) for _ in range(PAYLOADS)]
        self._reader = _client(load, READER)
        self._reader.on_message = self._on_receipt
        self._reader.subscribe([(topics.receipts("+"), 1)])
        self._writers = [_client(load, name) for name in WRITERS]
        for client in self._clients:
            client.on_publish = self._on_publish
        self._pending = 0
        self._version = 0
        self._made = self._size_bytes = 0
        self._waiting: dict[tuple[str, int], tuple[float, float, bytes]] = {}
        self._sequences: Counter[str] = Counter()
        self._outcomes: Counter[str] = Counter()
        self._latencies: list[float] = []
        self._begin = self._end = 0.0

    @property
    def _clients(self) -> Iterator[PortionClient]:
        yield from (self._reader, *self._writers)

    def run(self, enough: threading.Event) -> None:
        """Send everything."""
        self._begin = self._end = time.monotonic()
        cpu = time.process_time()
        resend_at = self._begin + RESEND_AFTER_S
        while not (enough.is_set() or self._made == self._load.updates):
            self._publish_due()
            _pump([*self._clients])
            resend_at = self._resend(resend_at)
        self._end = time.monotonic()
        while self._waiting if self._load.window else self._pending:
            _pump([*self._clients])
            resend_at = self._resend(resend_at)
            if time.monotonic() > self._end + DRAIN_S:
                raise TimeoutError(f"{len(self._waiting)} updates have no receipt")
        self._cpu_s = time.process_time() - cpu
        for client in self._clients:
            client.disconnect()

    def result(self) -> Sent:
        """What became of it."""
        return Sent(
            outcomes=dict(self._outcomes),
            sequences=dict(self._sequences),
            seconds=self._end - self._begin,
            latencies_s=np.array(self._latencies),
            cpu_s=self._cpu_s,
            size_bytes=self._size_bytes / max(1, self._made),
        )

    def _publish_due(self) -> None:
        load, now = self._load, time.monotonic()
        room = IN_FLIGHT * len(WRITERS) - self._pending
        if load.window:
            room = min(room, load.window - len(self._waiting))
        due = load.updates if load.rate is None else int((now - self._begin) * load.rate)
        for _ in range(min(room, min(due, load.updates) - self._made)):
            due_at = now if load.rate is None else self._begin + self._made / load.rate
            self._publish_new(due_at)

    def _publish_new(self, due_at: float) -> None:
        device = f"{self._load.fleet}-{self._made % self._load.devices}"
        self._sequences[device] += 1
        update = Update(
            task=self._bundle.task,
            sequence=self._sequences[device],
            base_version=self._version,
            examples=10,
            payload=self._payloads[self._made % PAYLOADS],
        )
        raw = update.encode()
        self._size_bytes += len(raw)
        if self._load.window:
            self._waiting[device, update.sequence] = (due_at, due_at, raw)
        self._publish(device, raw, self._made)
        self._made += 1

    def _publish(self, device: str, raw: bytes, number: int) -> None:
        self._pending += 1
        self._writers[number % len(self._writers)].publish(topics.updates(device), raw, qos=1)

    def _resend(self, at: float) -> float:
        now = time.monotonic()
        if now < at:
            return at
        for (device, sequence), (due_at, sent_at, raw) in list(self._waiting.items()):
            if now - sent_at > RESEND_AFTER_S:
                self._waiting[device, sequence] = (due_at, now, raw)
                self._publish(device, raw, sequence)
        return now + RESEND_AFTER_S / 5

    def _on_publish(self, *_: object) -> None:
        self._pending -= 1

    def _on_receipt(self, _client: object, _userdata: object, message: MQTTMessage) -> None:
        receipt = Receipt.decode(bytes(message.payload))
        key = (topics.device_of(message.topic), receipt.sequence)
        self._version = max(self._version, receipt.version)
        if key in self._waiting:
            due_at, _, _ = self._waiting.pop(key)
            self._end = time.monotonic()
            self._latencies.append(self._end - due_at)
            rejected = receipt.outcome is Outcome.REJECTED and receipt.reason
            self._outcomes[rejected.slug if rejected else receipt.outcome.name.lower()] += 1


def _client(load: Load, name: str) -> PortionClient:
    """A connected client; a broker that is not there is waited for."""
    address = urlsplit(load.broker)
    client = PortionClient(
        CallbackAPIVersion.VERSION2, client_id=name, protocol=MQTTProtocolVersion.MQTTv5
    )
    client.username_pw_set(name, load.password)
    client.max_inflight_messages_set(0)
    client.on_socket_register_write = lambda *_: None
    connected = threading.Event()
    client.on_connect = lambda *_: connected.set()
    client.connect(address.hostname or "", address.port or 1883)
    deadline = time.monotonic() + CONNECT_DEADLINE_S
    while not connected.is_set():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{name} cannot connect to {load.broker}")
        _pump([client])
    return client


def _pump(clients: Sequence[PortionClient]) -> None:
    """Send what waits, and read what has come, waiting a moment for it."""
    connections: list[Any] = [client.socket() for client in clients]
    for client, connection in zip(clients, connections, strict=True):
        if connection is None:
            raise ConnectionError("the broker has closed the connection")
        client.loop_write()
        connection.flush()
    wait_s = 0.0 if any(connection.unread for connection in connections) else STEP_S
    unsent = [connection for connection in connections if connection.unsent]
    readable, _, _ = select.select(connections, unsent, [], wait_s)
    for client, connection in zip(clients, connections, strict=True):
        if connection in readable or connection.unread:
            client.loop_read()
        client.loop_misc()
