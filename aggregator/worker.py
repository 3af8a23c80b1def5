"""A core at work: the thread that drives it, and the link that its messages come and go through."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from aggregator.acceptance import Publish
from aggregator.broker import Broker
from aggregator.metrics import Instruments
from aggregator.mqtt import Link
from aggregator.runner import Driven, Runner

__all__ = ["Connection", "Worker"]

D = TypeVar("D", bound=Driven)


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """How a worker is connected.

    Attributes:
        broker: where to.
        share: name of the group that shares the subscription; None has it alone.
        listen: whether any message should come.
        on_refused: called with a sentence when the broker refuses the credentials.
    """

    broker: Broker
    share: str | None = None
    listen: bool = True
    on_refused: Callable[[str], None]


class Worker(Generic[D]):
    """Runs a core from start to stop, once.

    Args:
        make: makes the core, given what publishes for it.
        connection: how it is connected.
        instruments: what is counted.
        announce: called with the core, in its thread, each time the connection stands.
        on_ready: called each time the connection stands.
        on_death: called with the error that ended the core's thread, if one did.

    Raises:
        BrokerError: the TLS files are not usable.
    """

    def __init__(
        self,
        make: Callable[[Publish], D],
        *,
        connection: Connection,
        instruments: Instruments,
        announce: Callable[[D], object],
        on_ready: Callable[[], None],
        on_death: Callable[[BaseException], None],
    ) -> None:
        self.runner: Runner[D] = Runner(
            make(self._publish),
            instruments=instruments,
            on_room=self._wake,
            on_death=on_death,
        )
        self._announce, self._on_ready = announce, on_ready
        self.link = Link(
            connection.broker,
            deliver=self.runner.post,
            has_room=lambda: self.runner.has_room,
            on_ready=self._connected,
            on_refused=connection.on_refused,
            share=connection.share,
            listen=connection.listen,
        )
        instruments.connected.set_function(lambda: float(self.link.connected))

    def start(self) -> None:
        """Start the core; ``connect`` is for when it can be seen by others.

        Raises:
            LedgerUnavailableError: the database refuses.
            FoldError: a task has lost every snapshot.
        """
        self.runner.start()

    def connect(self) -> None:
        """Begin to connect to the broker."""
        self.link.start()

    def stop(self, *, orderly: bool = True) -> None:
        """Stop taking updates, answer what is in hand, and hang up.

        Args:
            orderly: also save what makes the next start faster.
        """
        self.runner.stop(save=orderly)
        self.link.stop()

    @property
    def broker_problem(self) -> str | None:
        """What is wrong with the connection, or None."""
        return None if self.link.ready else self.link.problem or "not connected"

    # The core speaks to the link and the link to the core; these come between, because one of the
    # two must be made first.

    def _publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        self.link.publish(topic, payload, retain=retain)

    def _connected(self) -> None:
        self.runner.post_command(self._announce)
        self._on_ready()

    def _wake(self) -> None:
        self.link.wake()
