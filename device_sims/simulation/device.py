"""One simulated device: the production agent, and a connection and a power that come and go."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from device_sims.nature import Nature, Stretch
from device_sims.simulation.disk import Disk, NoSpaceError, Shortage
from device_sims.simulation.forger import Forger
from device_sims.simulation.mass import MassWatch
from device_sims.simulation.memory_store import MemoryStore
from device_sims.simulation.meter import Meter
from device_sims.simulation.network import Network
from device_sims.simulation.old_news import OldNews
from device_sims.simulation.places import Places
from device_sims.simulation.power import Breaker, PowerCut, breaking
from device_sims.simulation.virtual_time import START, Alarm, VirtualTime
from edge_agent.agent import Agent, Sent
from edge_agent.base import Base
from edge_agent.config import AgentConfig
from edge_agent.downloads import BlobSource
from edge_agent.errors import StoreError
from edge_agent.interactions import Interaction
from edge_agent.participant import STORE_RETRY_S
from edge_agent.runtimes import Runtime
from edge_agent.trainer import Trainer
from wire import topics
from wire.bundle import Bundle
from wire.delta import FloatArray
from wire.messages import Outcome, Receipt, Refusal, Status, StatusState

__all__ = ["STORE_WRITES", "Device", "Surroundings"]

STORE_WRITES = (
    "put",
    "claim",
    "add_interactions",
    "keep_manifest",
    "record_update",
    "sent",
    "postpone",
    "hasten",
    "settle",
    "take_back",
)
BROKER_SPREAD_S = 5.0
"""Devices whose broker came back connect within so many seconds."""


class Calling(Protocol):
    """Makes a call of a device's method that nothing but a number ties to the device."""

    def __call__(
        self, number: int, life: int | None, method: Callable[..., object], *args: object
    ) -> Callable[..., object]:
        """See ``Crowd.call``."""
        ...


@dataclass(slots=True, kw_only=True)
class Surroundings:
    """What every device of a simulation shares.

    Attributes:
        time: the clock.
        network: to the aggregator.
        source: of models.
        runtime: scores, and says what programs take.
        trainer: trains.
        task: 32 hex characters.
        meter: counts what taking part costs.
        breaker: cuts their power.
        shortage: fills their disks.
        restart_s: until a device that died comes back.
        from_backup: whether it comes back with an older storage this time.
        on_sent: called with each update that a device made.
        on_accepted: called with each update of which a device learns that the aggregator has it.
        shared: other objects that devices hold in common.
        call: makes a call of a device's method.
        resting: whether connections hold from now on, and nothing new is trained.
        places: are to be had before an update begins; None where there is always one.
        old_news: what updates start from; None for the newest version.
    """

    time: VirtualTime
    network: Network
    source: BlobSource
    runtime: Runtime
    trainer: Trainer
    task: str
    meter: Meter
    breaker: Breaker
    shortage: Shortage
    restart_s: float
    from_backup: Callable[[], bool]
    on_sent: Callable[[int, Sent], object]
    on_accepted: Callable[[int, int], object]
    shared: Sequence[object] = ()
    call: Calling = field(init=False)
    places: Places | None = None
    old_news: OldNews | None = None
    resting: bool = False


class Device:
    """Drives an agent as ``Participant`` does, under a virtual clock.

    When it is not busy it can be pickled: of itself it hands out nothing but its number.

    Args:
        number: its position in the fleet.
        config: its agent's.
        store: its storage.
        surroundings: what it shares.
        nature: what it is like.
        rng: draws what it does.
        watch: looks at what its storage does; None for nobody.
        forger: forges what it sends; None for an honest device.

    Attributes:
        number: as given.
        nature: as given.
        life: goes up whenever it is switched on or off.
    """

    def __init__(
        self,
        number: int,
        config: AgentConfig,
        store: MemoryStore,
        surroundings: Surroundings,
        nature: Nature,
        rng: np.random.Generator,
        *,
        watch: MassWatch | None = None,
        forger: Forger | None = None,
    ) -> None:
        self.number, self._config, self._store = number, config, store
        self._backup: MemoryStore | None = None
        self._around, self.nature, self._rng = surroundings, nature, rng
        self._watch, self._forger = watch, forger
        self._base: Base | None = None
        self._disk = Disk(surroundings.shortage, NoSpaceError)
        self._link, self._session = nature.conditions, 0
        self._stretch = Stretch(0.0, 0.0, nature.conditions)
        self._topic = topics.announcement(surroundings.task)
        self._agent: Agent | None = None
        self._alarm: Alarm | None = None
        self._online = self._present = self._trains = self._waits = False
        self._known = b""
        self.life = 0

    @property
    def settled(self) -> bool:
        """Whether every update that it made was answered; those of one that left never are."""
        if not self._present:
            return True
        return self._agent is not None and not self._agent.outbox.waiting.updates

    @property
    def is_busy(self) -> bool:
        """Whether it trains, or may have to forge something from what it trained on."""
        return self._trains or self._base is not None

    @property
    def listens(self) -> bool:
        """Whether it waits for an announcement, and for nothing else."""
        return self._online and self._alarm is None and not self._trains and not self._waits

    def start(self) -> None:
        """Switch it on, unless the run is over and it was never there."""
        if self._around.resting and not self._present:
            return
        self._present = True
        self.life += 1
        store, trainer = self._watched()
        try:
            self._agent = Agent(
                self._config,
                store=self._fallible(store),
                source=self._around.source,
                runtime=self._around.runtime,
                transport=self,
                clock=self._clock,
                rng=self._rng,
                trainer=trainer,
            )
        except (PowerCut, StoreError):
            self._die()
            return
        self._known = b""
        self._await_connection()

    def private(self, bundle: Bundle) -> dict[str, FloatArray]:
        """Its private parameters, as they can be seen because it is simulated; empty at first."""
        return self._store.private(bundle.task, bundle.manifest.private_parameters)

    def rest(self) -> None:
        """From now on its connection holds."""
        if not self._online and self._agent is not None:
            self._await_connection()

    def broken_off(self, down_s: float) -> None:
        """The broker is gone; it comes back after ``down_s``."""
        if not self._online:
            return
        stretch = self._stretch
        self._disconnect()
        self._do(Agent.disconnected)
        self._later(self._back_s(down_s), Device.connect, stretch)

    def announced(self) -> None:
        """There is a new announcement, and it waits for nothing else."""
        self._later(self._link.latency_s, Device.wake)

    def wake(self) -> None:
        """Look for something to do."""
        self._do(self._work)

    def chosen(self) -> None:
        """It has the place that it waited for."""
        self._waits = False
        self._later(self._link.latency_s, Device.wake)

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """As the agent's transport: what cannot be sent is dropped."""
        del retain
        if self._online:
            payload = self._forged(payload)
            self._around.meter.sent(self.nature, len(payload))
            self._around.network.send(topic, payload, self._link)

    def write_down(self, events: Sequence[Interaction]) -> None:
        """Its user did something; what cannot be written now is written later."""
        later_s = None
        store = self._store if self._agent is None else self._agent.store
        try:
            store.add_interactions(events)
        except StoreError:
            later_s = STORE_RETRY_S
        except PowerCut:
            later_s = self._around.restart_s + STORE_RETRY_S
            self._die()
        if later_s is not None:
            again = self._around.call(self.number, None, Device.write_down, events)
            self._around.time.after(later_s, again)

    def _forged(self, payload: bytes) -> bytes:
        if self._forger is None or self._base is None or self._agent is None:
            return payload
        return self._forger(payload, self._base, self._agent.private_parameters(self._base.task))

    def _clock(self) -> float:
        return self._around.time() + self.nature.skew_s

    def _now_s(self) -> float:
        return self._around.time() - START

    # What happens to it

    def _await_connection(self) -> None:
        """Connect when its nature says so; go for good if that is never again."""
        now_s = self._now_s()
        if self._around.resting:
            self.connect(Stretch(now_s, math.inf, self.nature.conditions))
            return
        stretch = self.nature.next_stretch(now_s, self._rng)
        if stretch is not None:
            self._later(stretch.from_s - now_s, Device.connect, stretch)
        elif self.nature.trace is None or now_s >= self.nature.leaves_s:
            self._leave()

    def connect(self, stretch: Stretch) -> None:
        """A stretch with a connection begins."""
        now_s = self._now_s()
        if self._online or self._agent is None:
            return
        if now_s >= stretch.to_s and not self._around.resting:
            self._await_connection()
            return
        if (down_s := self._around.network.down_s) > 0.0:
            self._later(self._back_s(down_s), Device.connect, stretch)
            return
        self._online, self._stretch, self._link = True, stretch, stretch.conditions
        self._session += 1
        self._around.network.connect(self._config.device, self._call(Device.receive), self._link)
        self._report(StatusState.ONLINE)
        if math.isfinite(stretch.to_s):
            self._later(stretch.to_s - now_s, Device.drop, self._session)
        self._do(Agent.connected)

    def drop(self, session: int) -> None:
        """The stretch of a session is over."""
        if self._around.resting or not self._online or session != self._session:
            return
        self._disconnect()
        self._do(Agent.disconnected)
        self._await_connection()

    def _leave(self) -> None:
        """Go for good."""
        self.life += 1
        self._disconnect()
        self._give_place_back(failed=True)
        self._agent, self._present, self._trains = None, False, False

    def _disconnect(self) -> None:
        if self._online and not self._around.network.down_s:
            self._report(StatusState.OFFLINE)
        self._online = self._waits = False
        self._around.network.disconnect(self._config.device)
        if self._around.places is not None:
            self._around.places.offline(self.number)

    def _report(self, state: StatusState) -> None:
        """Tell the aggregator its version and that it is there; its last will, that it is not."""
        version, config = self.nature.agent_version, self._config
        if version is not None:
            status = Status(state=state, agent=version, runtime=config.runtime)
            topic = topics.status(config.device)
            self._around.network.send(topic, status.encode(), self._link)

    def _back_s(self, down_s: float) -> float:
        """When it tries a broker again that is gone for so long: not all at once."""
        return down_s + float(self._rng.uniform(0.0, BROKER_SPREAD_S))

    def receive(self, topic: str, payload: bytes) -> None:
        """The broker delivers a receipt."""
        receipt = Receipt.decode(payload)
        if receipt.outcome is not Outcome.REJECTED:
            self._around.on_accepted(self.number, receipt.sequence)
        elif self._around.places is not None and _is_missed(receipt.reason):
            self._around.places.refused(self.number)
        self._do(lambda agent: agent.receive(topic, payload))

    def _work(self, agent: Agent) -> None:
        retained = self._around.network.retained.get(self._topic)
        if retained is not None and retained != self._known:
            agent.receive(self._topic, retained)
            self._known = retained
        agent.send_due()
        if not self._around.resting and agent.update_due() and self._has_place():
            self._begin(agent)

    def _begin(self, agent: Agent) -> None:
        before = agent.received_bytes
        base = self._begin_from(agent)
        if base is None:
            self._give_place_back(failed=True)
            return
        self._trains = True
        if self._forger is not None:
            self._base = base
        agent.train_ahead(base)
        download_s = (agent.received_bytes - before) / self._link.down_bytes_s
        train_s = self._link.update_s
        self._later(download_s + train_s, Device.finish, base, train_s)

    def _begin_from(self, agent: Agent) -> Base | None:
        """The newest version, or the older one that is drawn."""
        old = self._around.old_news.draw() if self._around.old_news else None
        if old is None:
            return agent.begin_update()
        agent.receive(self._topic, old)
        try:
            return agent.begin_update()
        finally:
            agent.receive(self._topic, self._known)

    def _has_place(self) -> bool:
        self._waits = self._around.places is not None and not self._around.places.ask(self.number)
        return not self._waits

    def _give_place_back(self, *, failed: bool) -> None:
        if self._around.places is not None:
            self._around.places.done(self.number, failed=failed)

    def finish(self, base: Base, train_s: float) -> None:
        """The local update is done."""
        self._trains = False
        self._around.meter.trained(self.nature, train_s)

        def finish(agent: Agent) -> None:
            sent = agent.finish_update(base)
            self._give_place_back(failed=sent is None)
            if sent is not None:
                self._around.meter.received(self.nature, sent.received_bytes)
                self._around.on_sent(self.number, sent)

        self._do(finish)

    # Driving the agent

    def _do(self, work: Callable[[Agent], object]) -> None:
        agent, soonest_s = self._agent, 0.0
        if agent is None:
            return
        try:
            try:
                work(agent)
            except StoreError:
                soonest_s = STORE_RETRY_S
            self._plan(agent, soonest_s)
        except PowerCut:
            self._die()

    def _plan(self, agent: Agent, soonest_s: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if not self._online:
            return
        now = self._around.time()
        try:
            due = now if self._unread() else self._due(agent)
        except StoreError:
            due, soonest_s = now, STORE_RETRY_S
        if due is not None:
            at = max(due, now + soonest_s)
            self._alarm = self._around.time.at(at, self._call(Device.ring))

    def _due(self, agent: Agent) -> float | None:
        due = agent.next_due(training=not self._around.resting and not self._waits)
        return None if due is None else due - self.nature.skew_s

    def ring(self) -> None:
        """The time has come that it waited for."""
        self._alarm = None
        self.wake()

    def _unread(self) -> bool:
        return (
            self._agent is not None
            and self._agent.announcement is None
            and (self._topic in self._around.network.retained)
        )

    def _die(self) -> None:
        self.life += 1
        self._disconnect()
        self._give_place_back(failed=True)
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        self._agent, self._trains = None, False
        if self._backup is not None and self._around.from_backup():
            self._store = self._backup.copy()
        else:
            self._backup = self._store.copy()
        self._later(self._around.restart_s, Device.start)

    def _later(self, delay_s: float, method: Callable[..., object], *args: object) -> Alarm:
        return self._around.time.after(delay_s, self._call(method, *args))

    def _call(self, method: Callable[..., object], *args: object) -> Callable[..., object]:
        """The call of one of its methods, if it is not dead in the meantime."""
        return self._around.call(self.number, self.life, method, *args)

    def _watched(self) -> tuple[Any, Trainer]:
        if self._watch is None:
            return self._store, self._around.trainer
        store = self._watch.over(self._store)
        return store, self._watch.trainer(self._around.trainer, store)

    def _fallible(self, store: Any) -> Any:
        full = breaking(store, self._disk, STORE_WRITES)
        return breaking(full, self._around.breaker, STORE_WRITES)


def _is_missed(reason: Refusal | None) -> bool:
    """Whether somebody else is to send what was refused.

    Not what comes too late, for which nobody waits any more, and not what is sent again.
    """
    return reason is not None and reason is not Refusal.TOO_STALE and not reason.momentary
