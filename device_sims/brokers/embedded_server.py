"""Runs amqtt on one loopback port until SIGTERM: ``python -m device_sims.brokers.embedded_server``.

`EmbeddedBroker` starts this; nobody else needs to.
"""

import asyncio
import logging
import sys

from amqtt.broker import Broker
from amqtt.contexts import BrokerConfig, ListenerConfig

from device_sims.brokers.embedded import READY

__all__ = ["main"]

PLUGINS = {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}}


def main(port: int) -> None:
    """Serve on 127.0.0.1 and the port until SIGTERM."""
    # At INFO amqtt writes several lines a message.
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("transitions").setLevel(logging.ERROR)
    asyncio.run(_serve(port))


async def _serve(port: int) -> None:
    listener = ListenerConfig(bind=f"127.0.0.1:{port}")
    broker = Broker(BrokerConfig(listeners={"default": listener}, plugins=PLUGINS))
    await broker.start()
    print(READY, flush=True)
    # No handler for SIGTERM: amqtt's shutdown waits for every client to leave, to save nothing.
    await asyncio.Event().wait()


if __name__ == "__main__":
    main(int(sys.argv[1]))
