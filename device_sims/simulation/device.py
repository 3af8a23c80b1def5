"""One simulated device: the production agent, and a connection and a power that come and go."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from device_sims.scenario import FleetBehaviour
from device_sims.simulation.memory_store import MemoryStore
from device_sims.simulation.network import Network
from device_sims.simulation.power import Breaker, PowerCut, breaking
from device_sims.simulation.virtual_time import Alarm, VirtualTime
from edge_agent.agent import Agent, Sent
from edge_agent.base import Base
from edge_agent.config import AgentConfig
from edge_agent.downloads import BlobSource
from edge_agent.runtimes import Runtime
from wire import topics
from wire.bundle import Bundle
from wire.delta import FloatArray
from wire.messages import Outcome, Receipt

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


class Calling(Protocol):
    """Makes a call of a device's method that nothing but a number ties to the device."""

    def __call__(
        self, number: int, life: int, method: Callable[..., object], *args: object
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
        runtime: trains.
        task: 32 hex characters.
        behaviour: what devices are like.
        breaker: cuts their power.
        restart_s: until a device that died comes back.
        from_backup: whether it comes back with an older storage this time.
        on_sent: called with each update that a device made.
        on_accepted: called with each update of which a device learns that the aggregator has it.
        shared: other objects that devices hold in common.
        call: makes a call of a device's method.
        resting: whether connections hold from now on, and nothing new is trained.
    """

    time: VirtualTime
    network: Network
    source: BlobSource
    runtime: Runtime
    task: str
    behaviour: FleetBehaviour
    breaker: Breaker
    restart_s: float
    from_backup: Callable[[], bool]
    on_sent: Callable[[int, Sent], object]
    on_accepted: Callable[[int, int], object]
    shared: Sequence[object] = ()
    call: Calling = field(init=False)
    resting: bool = False


class Device:
    """Drives an agent as ``Participant`` does, under a virtual clock.

    It can be pickled at any time but when it trains: of itself it hands out nothing but its number.

    Args:
        number: its position in the fleet.
        config: its agent's.
        store: its storage.
        surroundings: what it shares.
        rng: draws what it is like and what it does.

    Attributes:
        number: as given.
        life: goes up whenever it is switched on or dies.
        trains: whether it is between the beginning and the end of a local update.
    """

    def __init__(
        self,
        number: int,
        config: AgentConfig,
        store: MemoryStore,
        surroundings: Surroundings,
        rng: np.random.Generator,
    ) -> None:
        behaviour = surroundings.behaviour
        self.number, self._config, self._store = number, config, store
        self._backup: MemoryStore | None = None
        self._around, self._rng = surroundings, rng
        self._update_s = behaviour.update_s * math.exp(behaviour.update_sigma * rng.normal())
        self._skew_s = float(rng.uniform(-behaviour.clock_skew_s, behaviour.clock_skew_s))
        self._topic = topics.announcement(surroundings.task)
        self._agent: Agent | None = None
        self._alarm: Alarm | None = None
        self._online = self.trains = False
        self._known = b""
        self.life = 0

    @property
    def settled(self) -> bool:
        """Whether every update that it made was answered."""
        return self._agent is not None and not self._agent.outbox.waiting.updates

    @property
    def listens(self) -> bool:
        """Whether it waits for an announcement, and for nothing else."""
        return self._online and self._alarm is None and not self.trains

    def start(self) -> None:
        """Switch it on."""
        self.life += 1
        try:
            self._agent = Agent(
                self._config,
                store=breaking(self._store, self._around.breaker, STORE_WRITES),
                source=self._around.source,
                runtime=self._around.runtime,
                transport=self,
                clock=self._clock,
                rng=self._rng,
            )
        except PowerCut:
            self._die()
            return
        self._known = b""
        self._later(self._stretch(self._around.behaviour.offline_s, first=True), Device.connect)

    def private(self, bundle: Bundle) -> dict[str, FloatArray]:
        """Its private parameters, as they can be seen because it is simulated; empty at first."""
        return self._store.private(bundle.task, bundle.manifest.private_parameters)

    def wake(self) -> None:
        """Look for something to do: there may be a new announcement."""
        self._do(self._work)

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """As the agent's transport: what cannot be sent is dropped."""
        del retain
        if self._online:
            self._around.network.send(topic, payload)

    def _clock(self) -> float:
        return self._around.time() + self._skew_s

    # What happens to it

    def connect(self) -> None:
        """The broker can be reached."""
        if self._online or self._agent is None:
            return
        self._online = True
        self._around.network.connect(self._config.device, self._call(Device.receive))
        if not self._around.resting and self._around.behaviour.offline_s > 0.0:
            self._later(self._stretch(self._around.behaviour.online_s), Device.drop)
        self._do(Agent.connected)

    def drop(self) -> None:
        """The broker cannot be reached any more, for a while."""
        if self._around.resting:
            return
        self._disconnect()
        self._do(Agent.disconnected)
        self._later(self._stretch(self._around.behaviour.offline_s), Device.connect)

    def _disconnect(self) -> None:
        self._online = False
        self._around.network.disconnect(self._config.device)

    def receive(self, topic: str, payload: bytes) -> None:
        """The broker delivers a receipt."""
        receipt = Receipt.decode(payload)
        if receipt.outcome is not Outcome.REJECTED:
            self._around.on_accepted(self.number, receipt.sequence)
        self._do(lambda agent: agent.receive(topic, payload))

    def _work(self, agent: Agent) -> None:
        retained = self._around.network.retained.get(self._topic, b"")
        if retained != self._known:
            self._known = retained
            agent.receive(self._topic, retained)
        agent.send_due()
        if not self._around.resting and agent.update_due():
            base = agent.begin_update()
            if base is not None:
                self.trains = True
                self._later(self._work_s(base), Device.finish, base)

    def finish(self, base: Base) -> None:
        """The local update is done."""
        self.trains = False

        def finish(agent: Agent) -> None:
            sent = agent.finish_update(base)
            if sent is not None:
                self._around.on_sent(self.number, sent)

        self._do(finish)

    def _work_s(self, base: Base) -> float:
        download_s = base.announcement.size_bytes / self._around.behaviour.down_bytes_s
        return download_s + self._update_s

    # Driving the agent

    def _do(self, work: Callable[[Agent], object]) -> None:
        if self._agent is None:
            return
        try:
            work(self._agent)
            self._plan(self._agent)
        except PowerCut:
            self._die()

    def _plan(self, agent: Agent) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if not self._online:
            return
        training = not self._around.resting
        due = self._around.time() if self._unread() else agent.next_due(training=training)
        if due is not None:
            at = due if self._unread() else due - self._skew_s
            self._alarm = self._around.time.at(at, self._call(Device.ring))

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
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        self._agent, self.trains = None, False
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

    def _stretch(self, mean_s: float, *, first: bool = False) -> float:
        if self._around.resting or (first and mean_s <= 0.0):
            return 0.0
        return float(self._rng.exponential(mean_s))
