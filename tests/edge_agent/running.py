"""A reactor on a thread, and waiting for things to happen."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from edge_agent.errors import RefusedConnectionError
from edge_agent.reactor import Reactor

__all__ = ["Recorder", "Watcher", "running_reactor", "wait_until"]

DEADLINE_S = 15.0


def wait_until(happened: Callable[[], object], deadline_s: float = DEADLINE_S) -> None:
    """Return as soon as it happened.

    Raises:
        TimeoutError: it did not happen in time.
    """
    end = time.monotonic() + deadline_s
    while not happened():
        if time.monotonic() > end:
            raise TimeoutError("it did not happen in time")
        time.sleep(0.005)


@contextmanager
def running_reactor() -> Iterator[Reactor]:
    """A reactor that runs until the end of the block."""
    reactor = Reactor()
    thread = threading.Thread(target=reactor.run)
    thread.start()
    try:
        yield reactor
    finally:
        reactor.stop()
        thread.join(DEADLINE_S)
        reactor.close()


@dataclass
class Recorder:
    """A listener that remembers."""

    events: list[str] = field(default_factory=list)
    errors: list[RefusedConnectionError] = field(default_factory=list)
    messages: list[tuple[str, bytes]] = field(default_factory=list)

    def connected(self) -> None:
        self.events.append("connected")

    def disconnected(self) -> None:
        self.events.append("disconnected")

    def refused(self, error: RefusedConnectionError) -> None:
        self.errors.append(error)

    def message(self, topic: str, payload: bytes, *, retained: bool) -> None:
        del retained
        self.messages.append((topic, payload))


class Watcher:
    """Another client of the broker: sees everything, and may answer."""

    def __init__(
        self,
        port: int,
        *,
        password: tuple[str, str] | None = None,
        on_message: Callable[[str, bytes], object] | None = None,
    ) -> None:
        self.messages: list[tuple[str, bytes]] = []
        self._subscribed = threading.Event()
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
        if password:
            self._client.username_pw_set(*password)

        def heard(_client: object, _data: object, message: mqtt.MQTTMessage) -> None:
            self.messages.append((message.topic, bytes(message.payload)))
            if on_message is not None:
                on_message(message.topic, bytes(message.payload))

        self._client.on_message = heard
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_connect = self._subscribe
        self._client.reconnect_delay_set(1, 1)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert self._subscribed.wait(DEADLINE_S)

    def _subscribe(self, client: mqtt.Client, *_: object) -> None:
        client.subscribe("#", 1)

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        self._client.publish(topic, payload, 1, retain).wait_for_publish(DEADLINE_S)

    def send(self, topic: str, payload: bytes) -> None:
        """Publish without waiting, as a callback must."""
        self._client.publish(topic, payload, 1)

    def heard(self, topic: str) -> list[bytes]:
        return [payload for heard, payload in self.messages if heard == topic]

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def __enter__(self) -> "Watcher":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
