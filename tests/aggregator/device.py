"""A device as the broker sees one: publishes bytes, collects receipts and announcements."""

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from wire import topics
from wire.messages import Announcement, Receipt, Status, StatusState

__all__ = ["Device", "eventually"]

DEADLINE_S = 20.0


def eventually(condition: Callable[[], Any], *, deadline_s: float = DEADLINE_S) -> Any:
    """Wait until the condition is true and give its value; fail at the deadline."""
    deadline = time.monotonic() + deadline_s
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.01)
    raise AssertionError(f"not within {deadline_s:g} s: {condition}")


class Device:
    """One device with a connection of its own.

    Args:
        port: the broker's.
        name: its id.
        protocol: MQTT version.
        password: logs in with its name and this, if given.
    """

    def __init__(
        self,
        port: int,
        name: str = "device-1",
        *,
        protocol: MQTTProtocolVersion = MQTTProtocolVersion.MQTTv5,
        password: str | None = None,
    ) -> None:
        self.name = name
        self.receipts: list[Receipt] = []
        self.announcements: list[Announcement] = []
        self._subscribed = threading.Event()
        self._client = Client(CallbackAPIVersion.VERSION2, client_id=name, protocol=protocol)
        if password is not None:
            self._client.username_pw_set(name, password)
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = self._on_message
        self._client.reconnect_delay_set(1, 1)
        self._client.connect("127.0.0.1", port)

    def __enter__(self) -> Self:
        self._client.loop_start()
        if not self._subscribed.wait(DEADLINE_S):
            raise AssertionError(f"{self.name} could not subscribe")
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def send(self, payload: bytes) -> None:
        """Publish bytes where updates go."""
        self._client.publish(topics.updates(self.name), payload, qos=1)

    def go_online(self) -> None:
        """Publish a retained status."""
        status = Status(state=StatusState.ONLINE, agent="0.1.0", runtime="onnx").encode()
        self._client.publish(topics.status(self.name), status, qos=1, retain=True)

    def answers(self, sequence: int) -> list[Receipt]:
        """The receipts for one update, in the order they came."""
        return [receipt for receipt in list(self.receipts) if receipt.sequence == sequence]

    def answer(self, sequence: int) -> Receipt:
        """Wait for the first receipt for an update."""
        found: list[Receipt] = eventually(lambda: self.answers(sequence))
        return found[0]

    def _on_connect(self, client: Client, *_: Any) -> None:
        client.subscribe([(topics.receipts(self.name), 1), (topics.ALL_ANNOUNCEMENTS, 1)])

    def _on_message(self, _client: Client, _userdata: Any, message: MQTTMessage) -> None:
        if message.topic == topics.receipts(self.name):
            self.receipts.append(Receipt.decode(bytes(message.payload)))
        else:
            self.announcements.append(Announcement.decode(bytes(message.payload)))
