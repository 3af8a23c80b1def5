"""One device in real time: a participant that comes and goes, dies and is started again."""

import logging
import math
import random
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from device_sims.drive import Drive
from device_sims.live.pace import Pace
from device_sims.live.tally import Tally
from device_sims.live.way import Way
from device_sims.nature import Conditions, Nature, Stretch
from device_sims.simulation.device import STORE_WRITES
from device_sims.simulation.disk import Disk, NoSpaceError, Shortage
from device_sims.simulation.mishaps import Mishaps
from device_sims.simulation.power import Breaker, PowerCut, breaking
from edge_agent import VERSION
from edge_agent.agent import Agent
from edge_agent.base import Base
from edge_agent.config import AgentConfig
from edge_agent.downloads import BlobSource
from edge_agent.errors import StoreError
from edge_agent.interactions import Interaction
from edge_agent.participant import STORE_RETRY_S, Participant
from edge_agent.runtimes import Runtime
from edge_agent.state_dir import open_store

__all__ = ["Around", "Device"]

logger = logging.getLogger(__name__)

Arrivals = Iterator[tuple[float, Sequence[Interaction]]]


class _DeadError(Exception):
    """The device's process is gone: what was on its way to the disk is not written any more."""


@dataclass(slots=True, kw_only=True)
class Around:
    """What the devices of a process share.

    Attributes:
        drive: moves them.
        source: of models.
        runtime: trains.
        tally: counts what they do.
        breaker: kills them at writes to their storage.
        restart_s: how long they are dead then, in scenario seconds.
        shortage: fills their disks.
        mishaps: what their messages suffer, and which of the dead come back from a backup.
        checks: whether messages and updates are looked into.
        spread_s: the first connections are spread over so many seconds.
        pace: the clock, which stands until the run begins.
        resting: whether connections hold from now on, and nothing new is trained.
    """

    drive: Drive
    source: BlobSource
    runtime: Runtime
    tally: Tally
    breaker: Breaker
    restart_s: float
    shortage: Shortage
    mishaps: Mishaps
    checks: bool
    spread_s: float
    pace: Pace
    resting: bool = False


class Device:
    """Lets a participant live as its nature says.

    Its methods belong to the reactor's thread, if they do not say otherwise.

    Args:
        number: its position in the fleet.
        config: its agent's.
        around: what it shares.
        nature: what it is like.
        history: what it knows at the start.
        arrivals: what its user does later, with the scenario seconds at which that happens.
        rng: draws what it does.
    """

    def __init__(
        self,
        number: int,
        config: AgentConfig,
        around: Around,
        nature: Nature,
        history: Sequence[Interaction],
        arrivals: Arrivals,
        rng: np.random.Generator,
    ) -> None:
        self.number, self._config, self._around, self._nature = number, config, around, nature
        self._arrivals, self._rng = arrivals, rng
        self._unwritten: deque[Sequence[Interaction]] = deque([history])
        self._stretch: Stretch | None = None
        self._disk = Disk(around.shortage, NoSpaceError)
        self._turn = 0
        self._left = self._first = False
        self.participant: Participant | None = None
        self._open()

    @property
    def is_connected(self) -> bool:
        """Whether the broker has accepted it; from any thread."""
        participant = self.participant
        return participant is not None and participant.is_connected

    @property
    def waiting(self) -> int:
        """Updates that wait for an answer, as far as it is there to hear one; from any thread."""
        if self._left:
            return 0
        participant = self.participant
        # Of one that is dead nobody knows; it comes back.
        return 1 if participant is None else participant.agent.outbox.waiting.updates

    @property
    def is_training(self) -> bool:
        """Whether it may soon have another update that waits; from any thread."""
        participant = self.participant
        return participant is not None and participant.agent.is_training

    def begin(self) -> None:
        """The run begins."""
        self._first = True
        self._await_connection()
        self._await_arrival()

    def rest(self) -> None:
        """Train no more, and stay connected, if it ever came."""
        participant = self.participant
        if participant is not None and self._around.pace.now_s() >= self._nature.joins_s:
            participant.rest()
            participant.start()
            # What was lost on the way is not waited for: it is sent again as after an outage.
            participant.post(lambda agent: agent.outbox.reconnected())

    # Coming and going

    def _await_connection(self) -> None:
        """Plan the next stretch with a connection; what was planned before counts no more."""
        around, now_s = self._around, self._around.pace.now_s()
        self._turn += 1
        turn = self._turn
        if around.resting:
            self.rest()
            return
        stretch = self._nature.next_stretch(now_s, self._rng)
        if stretch is not None:
            jitter_s = random.uniform(0.0, around.spread_s) if self._first else 0.0
            self._first = False
            delay_s = around.pace.wall_s(stretch.from_s - now_s) + jitter_s
            self._later(delay_s, lambda: self._connect(stretch, turn))
        elif self._nature.trace is None or now_s >= self._nature.leaves_s:
            self._leave()

    def _connect(self, stretch: Stretch, turn: int) -> None:
        participant, now_s = self.participant, self._around.pace.now_s()
        if participant is None or self._around.resting or turn != self._turn:
            return
        if now_s >= stretch.to_s:
            self._await_connection()
            return
        self._stretch = stretch
        participant.start()
        if math.isfinite(stretch.to_s):
            wall_s = self._around.pace.wall_s(stretch.to_s - now_s)
            self._later(wall_s, lambda: self._drop(turn))

    def _drop(self, turn: int) -> None:
        participant = self.participant
        if participant is None or self._around.resting or turn != self._turn:
            return
        participant.suspend()
        self._await_connection()

    def _leave(self) -> None:
        """Go for good."""
        participant, self.participant, self._left = self.participant, None, True
        if participant is not None:
            participant.stop(lambda: None)

    # Interactions

    def _await_arrival(self) -> None:
        found = next(self._arrivals, None)
        if found is None or self._left:
            return
        at_s, events = found

        def happens() -> None:
            self._unwritten.append(events)
            self._with_participant(self._write_down)
            self._await_arrival()

        self._later(self._around.pace.wall_s(at_s - self._around.pace.now_s()), happens)

    def _with_participant(self, work: Callable[[Agent], object]) -> None:
        if (participant := self.participant) is not None:
            participant.post(work)

    def _write_down(self, agent: Agent) -> None:
        try:
            while self._unwritten:
                agent.store.add_interactions(self._unwritten[0])
                self._unwritten.popleft()
        except StoreError:
            again = partial(self._with_participant, self._write_down)
            self._in_loop(lambda: self._later(STORE_RETRY_S, again))
            raise

    # Dying and being started again

    def _open(self) -> None:
        """Make the participant, on the constructor's or the worker's thread."""
        around, store = self._around, open_store(self._config, create=True)
        # Before anything can die: a device that knows nothing would not be in the data.
        while self._unwritten:
            store.add_interactions(self._unwritten.popleft())
        heard, trainer = around.tally.over(store, self.number, self._nature, checks=around.checks)
        try:
            participant = Participant(
                self._config,
                reactor=around.drive.reactor,
                workers=around.drive.workers,
                source=around.source,
                runtime=around.runtime,
                store=breaking(
                    breaking(heard, self._disk, STORE_WRITES),
                    _Mains(around.breaker, self._died),
                    STORE_WRITES,
                ),
                trainer=trainer,
                automatic=not around.resting,
                delay_s=self._delay_s,
                clock=self._clock,
                rng=self._rng,
                connect=partial(
                    Way,
                    mishaps=around.mishaps,
                    conditions=self._conditions,
                    pace=lambda: around.pace,
                ),
                version=self._nature.agent_version or VERSION,
            )
        except (_DeadError, NoSpaceError):
            store.close()
            self._reopen()
            return
        self.participant = participant

    def _died(self) -> None:
        """On the worker's thread: the process is gone, in the middle of a write."""
        participant, self.participant = self.participant, None
        if participant is not None:
            participant.stop(self._reopen, abruptly=True)

    def _reopen(self) -> None:
        """Start it again later; from the worker's thread."""
        around = self._around
        delay_s = around.pace.wall_s(around.restart_s)
        self._in_loop(lambda: self._later(delay_s, lambda: around.drive.workers.post(self._again)))

    def _again(self) -> None:
        try:
            self._restore()
            self._open()
        except (StoreError, OSError) as error:
            logger.error("%s cannot start: %s", self._config.device, error)
            self._reopen()
            return
        if self.participant is not None:
            self._in_loop(self._await_connection)

    def _restore(self) -> None:
        """Put the storage of the last start in place of what it died with, or make a backup."""
        if not self._around.mishaps.faults.backup:
            return
        folder = self._config.state_dir
        backup = folder.with_name(f"{folder.name}.backup")
        source, target = folder, backup
        if backup.is_dir() and self._around.mishaps.strikes("backup"):
            source, target = backup, folder
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(source, target)

    # As the agent sees the world

    def _clock(self) -> float:
        return time.time() + self._around.pace.wall_s(self._nature.skew_s)

    def _delay_s(self, _base: Base) -> float:
        """How long it downloads and trains, beside what that takes here."""
        conditions, participant = self._conditions(), self.participant
        received = 0 if participant is None else participant.agent.received_bytes
        return self._around.pace.wall_s(received / conditions.down_bytes_s + conditions.update_s)

    def _conditions(self) -> Conditions:
        return self._nature.conditions if self._stretch is None else self._stretch.conditions

    def _later(self, delay_s: float, call: Callable[[], object]) -> None:
        self._around.drive.reactor.call_later(max(0.0, delay_s), call)

    def _in_loop(self, call: Callable[[], object]) -> None:
        self._around.drive.reactor.call_soon_threadsafe(call)


class _Mains:
    """Kills a device at a write, before it or after it; from then on it writes nothing."""

    def __init__(self, breaker: Breaker, died: Callable[[], object]) -> None:
        self._breaker, self._died, self._dead = breaker, died, False

    def write(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if self._dead:
            raise _DeadError
        try:
            return self._breaker.write(method, *args, **kwargs)
        except PowerCut:
            self._dead = True
            self._died()
            raise _DeadError from None
