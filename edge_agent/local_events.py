"""Interactions from a topic on the device's own broker or hub."""

import logging
import time
from collections.abc import Callable

from edge_agent.config import AgentConfig, LocalTopicConfig
from edge_agent.connection import Connection
from edge_agent.errors import InteractionError, RefusedConnectionError, StoreError
from edge_agent.interactions import parse_event
from edge_agent.reactor import Reactor
from edge_agent.state_dir import open_store
from edge_agent.task import known_manifest

__all__ = ["LocalEvents"]

logger = logging.getLogger(__name__)


class LocalEvents:
    """Listens on the local topic and adds what it hears to the history.

    An event is stored before the local broker gets its acknowledgement. It has a connection to the
    database of its own, because it stores on the reactor's thread while the agent works elsewhere.

    Args:
        config: settings of the device.
        local: where to listen.
        reactor: drives the connection.
        on_added: called on the reactor's thread when the history has grown.

    Raises:
        AgentError: the database or a TLS file cannot be used.
    """

    def __init__(
        self,
        config: AgentConfig,
        local: LocalTopicConfig,
        *,
        reactor: Reactor,
        on_added: Callable[[], object],
    ) -> None:
        self._task, self._on_added = config.task, on_added
        self._store = open_store(config, create=True)
        self._connection = Connection(
            local.broker,
            reactor=reactor,
            client_id=f"{config.device}-events",
            listener=self,
            subscriptions=lambda: (local.topic,),
        )
        self.refused_events = 0

    def start(self) -> None:
        """Connect and listen; from any thread."""
        self._connection.start()

    def stop(self, then: Callable[[], object]) -> None:
        """Disconnect and close the database; ``then`` is called on the reactor's thread."""

        def closed() -> None:
            self._store.close()
            then()

        self._connection.stop(closed)

    def connected(self) -> None:
        """The local broker accepted the connection."""

    def disconnected(self) -> None:
        """The local broker is gone; it keeps the session for a while."""

    def refused(self, error: RefusedConnectionError) -> None:
        """An attempt to connect failed; the next one follows."""
        logger.warning("local events: %s", error)

    def message(self, topic: str, payload: bytes, *, retained: bool) -> None:
        """One event; one that is refused is counted, and logged without what it says.

        A retained event comes again at every connection, so it must bring the time that tells
        whether it is known already.
        """
        try:
            manifest = known_manifest(self._store, self._task)
            event = parse_event(payload, manifest=manifest, now=time.time(), retained=retained)
            if self._store.add_interactions([event]):
                self._on_added()
        except InteractionError as error:
            self.refused_events += 1
            logger.warning(
                "event %d refused on %s, %d bytes: %s",
                self.refused_events,
                topic,
                len(payload),
                error.reason,
            )
        except StoreError as error:
            logger.error("event on %s is lost: %s", topic, error)
