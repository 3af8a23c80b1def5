"""Runs amqtt on one loopback port until SIGTERM: ``python -m device_sims.brokers.embedded_server``.

`EmbeddedBroker` starts this; nobody else needs to.
"""

import asyncio
import logging
import sys
from collections.abc import Iterator

from amqtt.adapters import StreamReaderAdapter, StreamWriterAdapter
from amqtt.broker import Broker
from amqtt.contexts import BrokerConfig, ListenerConfig
from amqtt.session import Session

from device_sims.brokers.embedded import READY

__all__ = ["main"]

PLUGINS = {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}}

# The answer of MQTT 5 for a version of the protocol that is not spoken here.
UNSUPPORTED_VERSION = bytes([0x20, 3, 0, 0x84, 0])
MQTT_5 = b"\x00\x04MQTT\x05"


def main(port: int) -> None:
    """Serve on 127.0.0.1 and the port until SIGTERM."""
    # At INFO amqtt writes several lines a message.
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("transitions").setLevel(logging.ERROR)
    asyncio.run(_serve(port))


async def _serve(port: int) -> None:
    listener = ListenerConfig(bind=f"127.0.0.1:{port}")
    broker = _FleetBroker(BrokerConfig(listeners={"default": listener}, plugins=PLUGINS))
    await broker.start()
    print(READY, flush=True)
    # No handler for SIGTERM: amqtt's shutdown waits for every client to leave, to save nothing.
    await asyncio.Event().wait()


class _Subscriptions(dict[str, list[tuple[Session, int]]]):
    """Topic filters that may change while somebody walks over them."""

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(super().__iter__()))


class _FleetBroker(Broker):  # type: ignore[misc]
    """amqtt, made to hold hundreds of clients that have retained messages."""

    # Both names are private to amqtt and were read in 0.12.1, where every connect awaits in a loop
    # over all filters, which ends the client's handler when somebody subscribes meanwhile, and
    # sends it the retained messages of all of them. A release that renames them fails our tests.
    def __init__(self, config: BrokerConfig) -> None:
        super().__init__(config)
        self._subscriptions = _Subscriptions()

    async def stream_connected(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, listener_name: str
    ) -> None:
        """Turn a client of MQTT 5 away with an answer; amqtt would just hang up."""
        try:
            start, rest = await _read_packet(reader)
            if rest.startswith(MQTT_5):
                writer.write(UNSUPPORTED_VERSION)
                await writer.drain()
                writer.close()
                return
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()
            return
        replayed = _Replayed(reader, start + rest)
        await self.external_connected(replayed, StreamWriterAdapter(writer), listener_name)

    async def _publish_retained_messages_for_subscription(
        self, subscription: tuple[str, int], session: Session
    ) -> None:
        holders = self._subscriptions.get(subscription[0], ())
        if any(holder.client_id == session.client_id for holder, _ in holders):
            await super()._publish_retained_messages_for_subscription(subscription, session)


class _Replayed(StreamReaderAdapter):  # type: ignore[misc]
    """A reader that first gives what was read from it already."""

    def __init__(self, reader: asyncio.StreamReader, already: bytes) -> None:
        super().__init__(reader)
        self._already = already

    async def read(self, n: int = -1) -> bytes:
        """As the base: exactly n bytes, or all that come where n is -1."""
        size = len(self._already) if n < 0 else n
        head, self._already = self._already[:size], self._already[size:]
        tail: bytes = await super().read(n if n < 0 else n - len(head))
        return head + tail


async def _read_packet(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Read one MQTT packet: its type and length as they came, and what follows them."""
    start = await reader.readexactly(2)
    while start[-1] & 0x80 and len(start) < 5:
        start += await reader.readexactly(1)
    size = sum((byte & 0x7F) << (7 * place) for place, byte in enumerate(start[1:]))
    return start, await reader.readexactly(size)


if __name__ == "__main__":
    main(int(sys.argv[1]))
