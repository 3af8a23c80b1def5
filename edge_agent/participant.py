"""One agent in the world: its messages, its timers, and its work on a thread of a pool."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np

from edge_agent import VERSION
from edge_agent.agent import Agent, Sent
from edge_agent.base import Base
from edge_agent.config import AgentConfig
from edge_agent.connection import Connection
from edge_agent.dialing import Will
from edge_agent.downloads import BlobSource
from edge_agent.durable_state import DurableState
from edge_agent.errors import RefusedConnectionError, StoreError
from edge_agent.reactor import Reactor, Timer
from edge_agent.runtimes import Runtime, open_runtime
from edge_agent.state_dir import open_downloads, open_store
from edge_agent.trainer import Trainer
from edge_agent.workers import Serial, Workers
from wire import topics
from wire.messages import Status, StatusState

__all__ = ["Participant"]

logger = logging.getLogger(__name__)

STORE_RETRY_S = 10.0
ALARM_TOLERANCE_S = 0.02


class Participant:
    """Connects an agent to its broker and lets it work when it is due.

    Messages arrive on the reactor's thread and are handed to the agent on a worker thread, one at
    a time and in order, so that training and disk never delay a keepalive. Announcements that
    arrive while the agent is busy replace each other: only the newest counts.

    Args:
        config: settings of the device. Its folder is made when missing.
        reactor: drives the connection; may be shared by many participants.
        workers: threads for the agent's work; likewise.
        source: where models come from; None downloads into the device's own folder.
        runtime: what trains; None opens the one that the settings name.
        store: its durable state; None opens the database in its folder.
        trainer: does the work of its updates; None for where it is due.
        automatic: train whenever the task's policy says so; False trains only on request, and
            reads announcements only then.
        delay_s: of an update that it begins by itself, see ``request_update``; None for no delay.
        on_sent: called on a worker thread after each local update that went into the outbox.
        on_settled: called on a worker thread when receipts have emptied the outbox.
        clock: unix seconds.
        rng: for sampling and jitter; None seeds from the operating system.
        connect: makes its connection to the broker, as ``Connection`` does.
        version: what it tells the aggregator that it is.

    Raises:
        AgentError: the database, the runtime or a TLS file cannot be used.
    """

    def __init__(
        self,
        config: AgentConfig,
        *,
        reactor: Reactor,
        workers: Workers,
        source: BlobSource | None = None,
        runtime: Runtime | None = None,
        store: DurableState | None = None,
        trainer: Trainer | None = None,
        automatic: bool = True,
        delay_s: Callable[[Base], float] | None = None,
        on_sent: Callable[[Sent], object] | None = None,
        on_settled: Callable[[], object] | None = None,
        clock: Callable[[], float] = time.time,
        rng: np.random.Generator | None = None,
        connect: Callable[..., Connection] = Connection,
        version: str = VERSION,
    ) -> None:
        self._reactor, self._clock, self._automatic = reactor, clock, automatic
        self._delay_s = delay_s
        self._on_sent, self._on_settled, self._serial = on_sent, on_settled, Serial(workers)
        self._inbox: dict[object, tuple[str, bytes]] = {}
        self._inbox_lock = threading.Lock()
        self._woken = False
        self._timer: Timer | None = None
        self._alarm_at = 0.0
        self._stopping = False
        online, offline = (
            Status(state=state, agent=version, runtime=config.runtime).encode()
            for state in (StatusState.ONLINE, StatusState.OFFLINE)
        )
        will = Will(topics.status(config.device), offline)
        self._online = Will(will.topic, online)
        self._connection = connect(
            config.broker,
            reactor=reactor,
            client_id=config.device,
            listener=self,
            subscriptions=lambda: self.agent.subscriptions(),
            will=will,
        )
        self.agent: Agent = Agent(
            config,
            store=store or open_store(config, create=True),
            source=source or open_downloads(config),
            runtime=runtime or open_runtime(config.runtime),
            transport=self._connection,
            clock=clock,
            rng=rng,
            trainer=trainer,
        )

    @property
    def is_connected(self) -> bool:
        """Whether the broker has accepted it; from any thread."""
        return self._connection.is_accepted

    def start(self) -> None:
        """Connect, and take part from then on; also after ``suspend``; from any thread."""
        self._connection.start()

    def suspend(self) -> None:
        """Lose the network, without a word, until ``start``; work in hand goes on."""
        self._connection.suspend()

    def rest(self) -> None:
        """Begin no more updates by itself; what waits is sent all the same. From any thread."""
        self._automatic = False

    def post(self, work: Callable[[Agent], object]) -> None:
        """Do something with the agent, in turn with everything else it does; from any thread."""
        self._serial.post(lambda: self._turn(work))

    def request_update(
        self,
        *,
        delay_s: Callable[[Base], float] | None = None,
        done: Callable[[Sent | None], object] | None = None,
    ) -> None:
        """Make one local update now, whatever the interval; from any thread.

        Args:
            delay_s: time that passes between getting the model and training on it, as it would on
                a slower device; the thread is free meanwhile.
            done: called on a worker thread with what was sent, or None when nothing was: not
                connected, paused, nothing to train on, or a failure that was logged.
        """
        self.post(lambda agent: self._begin(agent, delay_s, done))

    def stop(self, then: Callable[[], object], *, abruptly: bool = False) -> None:
        """Say goodbye to the broker, finish the work in hand, and close the database.

        Args:
            then: called on a worker thread when all is done.
            abruptly: without the goodbye, as when the process is killed.
        """
        self._stopping = True
        closed = partial(self._serial.post, lambda: self._closed(then))
        self._connection.stop(closed, abruptly=abruptly)

    # What the connection says, on the reactor's thread

    def connected(self) -> None:
        """The broker accepted the device."""
        self._connection.publish(self._online.topic, self._online.payload, retain=True)
        self.post(Agent.connected)

    def disconnected(self) -> None:
        """The broker is gone; the connection is being made again."""
        self.post(Agent.disconnected)

    def refused(self, error: RefusedConnectionError) -> None:
        """An attempt to connect failed; the next one follows."""
        logger.log(logging.WARNING if error.transient else logging.ERROR, "%s", error)

    def message(self, topic: str, payload: bytes, *, retained: bool) -> None:
        """A message for the agent."""
        del retained
        announced = topic.startswith(f"{topics.ROOT}/tasks/")
        with self._inbox_lock:
            self._inbox[topic if announced else object()] = (topic, payload)
            wake = not self._woken and (self._automatic or not announced)
            self._woken = self._woken or wake
        if wake:
            self.post(self._read_inbox)

    # In turn, on a worker thread

    def _turn(self, work: Callable[[Agent], object]) -> None:
        if self._stopping:
            return
        soonest_s = 0.0
        try:
            work(self.agent)
        except StoreError as error:
            logger.error("%s", error)
            soonest_s = STORE_RETRY_S
        except Exception:
            if self._stopping:
                return
            # A fault in one turn must not silence the device for ever.
            logger.exception("the agent failed; it goes on in %d s", STORE_RETRY_S)
            soonest_s = STORE_RETRY_S
        self._plan(soonest_s)

    def _read_inbox(self, agent: Agent) -> None:
        with self._inbox_lock:
            inbox, self._inbox, self._woken = self._inbox, {}, False
        waiting = agent.outbox.waiting.updates
        for topic, payload in inbox.values():
            try:
                agent.receive(topic, payload)
            except StoreError as error:
                logger.error("message on %s is lost: %s", topic, error)
            except Exception:
                if self._stopping:
                    return
                logger.exception("message on %s is lost", topic)
        if self._on_settled is not None and waiting and not agent.outbox.waiting.updates:
            self._on_settled()

    def _plan(self, soonest_s: float) -> None:
        due_at: float | None
        try:
            due_at = self.agent.next_due(training=self._automatic)
        except StoreError as error:
            logger.error("%s", error)
            due_at, soonest_s = self._clock(), STORE_RETRY_S
        if due_at is not None:
            alarm_at = time.monotonic() + max(due_at - self._clock(), soonest_s)
            self._reactor.call_soon_threadsafe(lambda: self._arm(alarm_at))

    def _arm(self, alarm_at: float) -> None:
        """Wake up about then. An earlier alarm is left alone: whoever wakes plans anew."""
        if self._timer is not None:
            if self._alarm_at <= alarm_at + ALARM_TOLERANCE_S:
                return
            self._timer.cancel()
        self._alarm_at = alarm_at
        self._timer = self._reactor.call_later(alarm_at - time.monotonic(), self._wake)

    def _wake(self) -> None:
        self._timer = None
        self.post(self._work)

    def _work(self, agent: Agent) -> None:
        agent.send_due()
        if self._automatic and agent.update_due():
            base = agent.begin_update()
            if base is not None:
                wait_s = None if self._delay_s is None else self._delay_s(base)
                self._finish_after(wait_s, agent, base, None)

    def _begin(
        self,
        agent: Agent,
        delay_s: Callable[[Base], float] | None,
        done: Callable[[Sent | None], object] | None,
    ) -> None:
        with _answering(done):
            self._read_inbox(agent)
            base = agent.begin_update(early=True)
            wait_s = None if base is None or delay_s is None else delay_s(base)
        if base is None:
            if done is not None:
                done(None)
        else:
            self._finish_after(wait_s, agent, base, done)

    def _finish_after(
        self,
        wait_s: float | None,
        agent: Agent,
        base: Base,
        done: Callable[[Sent | None], object] | None,
    ) -> None:
        if wait_s is None:
            self._finish(agent, base, done)
        else:
            finish = partial(self.post, lambda agent: self._finish(agent, base, done))
            later = partial(self._reactor.call_later, wait_s, finish)
            self._reactor.call_soon_threadsafe(later)

    def _finish(
        self, agent: Agent, base: Base, done: Callable[[Sent | None], object] | None
    ) -> None:
        with _answering(done):
            sent = agent.finish_update(base)
            if sent is not None and self._on_sent is not None:
                self._on_sent(sent)
        if done is not None:
            done(sent)

    def _closed(self, then: Callable[[], object]) -> None:
        self.agent.store.close()
        then()


@contextmanager
def _answering(done: Callable[[Sent | None], object] | None) -> Iterator[None]:
    """Whoever waits for an update is told, too, when an exception ends it."""
    try:
        yield
    except Exception:
        if done is not None:
            done(None)
        raise
