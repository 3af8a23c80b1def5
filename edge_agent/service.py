"""``rivulet-agent run``: one participant in a process of its own, until it is told to stop."""

import fcntl
import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from edge_agent.config import AgentConfig
from edge_agent.errors import StoreError
from edge_agent.local_events import LocalEvents
from edge_agent.memory import give_back, keep_small
from edge_agent.participant import Participant
from edge_agent.reactor import Reactor
from edge_agent.systemd import ServiceManager
from edge_agent.workers import Workers

__all__ = ["run"]

logger = logging.getLogger(__name__)

STOP_TIMEOUT_S = 5.0
INTERRUPTED = 130


def run(config: AgentConfig) -> None:
    """Take part until SIGTERM or SIGINT; a second signal ends the process at once.

    Raises:
        AgentError: a setting, the database or the runtime cannot be used.
        OSError: the state folder cannot be made.
    """
    keep_small()
    config.state_dir.mkdir(parents=True, exist_ok=True)
    with _only_one(config):
        reactor, workers, manager = Reactor(), Workers(1, "agent"), ServiceManager()
        participant = Participant(config, reactor=reactor, workers=workers)
        events = None
        if config.local is not None:
            events = LocalEvents(
                config,
                config.local,
                reactor=reactor,
                on_added=lambda: participant.post(lambda _agent: None),
            )
            events.start()
        stop = _Stop(reactor, participant, events, manager)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, stop.signalled)
        participant.start()
        reactor.call_soon_threadsafe(manager.ready)
        give_back()
        _keep_alive(reactor, manager)
        reactor.run()
        if not workers.stop(STOP_TIMEOUT_S):
            # What it was doing is in no transaction yet, so nothing is lost with it.
            logger.warning("stopped in the middle of a local update; it will be made again")
            _exit_now(0)
        reactor.close()


class _Stop:
    """Turns signals into one graceful stop."""

    def __init__(
        self,
        reactor: Reactor,
        participant: Participant,
        events: LocalEvents | None,
        manager: ServiceManager,
    ) -> None:
        self._reactor, self._participant, self._events = reactor, participant, events
        self._manager, self._signalled = manager, False

    def signalled(self, number: int, _frame: FrameType | None) -> None:
        if self._signalled:
            _exit_now(INTERRUPTED)
        self._signalled = True
        self._reactor.call_soon_threadsafe(lambda: self._begin(number))

    def _begin(self, number: int) -> None:
        logger.info("stopping: %s", signal.Signals(number).name)
        self._manager.stopping()
        # A long training must not hold the process: its connection is closed by then anyway.
        self._reactor.call_later(STOP_TIMEOUT_S, self._reactor.stop)
        if self._events is not None:
            self._events.stop(lambda: None)
        self._participant.stop(self._reactor.stop)


def _keep_alive(reactor: Reactor, manager: ServiceManager) -> None:
    every_s = manager.alive_every_s
    if every_s is not None:
        manager.alive()
        reactor.call_later(every_s, lambda: _keep_alive(reactor, manager))


@contextmanager
def _only_one(config: AgentConfig) -> Iterator[None]:
    """Hold the state folder: two agents on one database would number their updates alike."""
    with (config.state_dir / "agent.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreError(
                f"another agent is running on {config.state_dir}; stop it, or use another state_dir"
            ) from None
        yield


def _exit_now(code: int) -> NoReturn:
    logging.shutdown()
    os._exit(code)
