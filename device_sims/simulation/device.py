"""One simulated device: the production agent, and a connection and a power that come and go."""

import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from aggregator.ledger import UpdateKey
from device_sims.scenario import FleetBehaviour
from device_sims.simulation.network import Network
from device_sims.simulation.power import Breaker, PowerCut, breaking
from device_sims.simulation.virtual_time import Alarm, VirtualTime
from edge_agent.agent import Agent, Sent
from edge_agent.base import Base
from edge_agent.config import AgentConfig, BrokerConfig
from edge_agent.downloads import BlobSource
from edge_agent.runtimes import Runtime
from edge_agent.store import Store
from edge_agent.trainer import Trainer
from wire import topics
from wire.bundle import Bundle
from wire.delta import FloatArray
from wire.messages import Outcome, Receipt

__all__ = ["Device", "Surroundings"]

STORE_WRITES = (
    "put",
    "add_interactions",
    "keep_manifest",
    "record_update",
    "sent",
    "postpone",
    "hasten",
    "settle",
    "take_back",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What every device of a simulation shares.

    Attributes:
        time: the clock.
        network: to the aggregator.
        source: of models.
        runtime: scores, and says what programs take.
        trainer: trains.
        task: 32 hex characters.
        behaviour: what devices are like.
        breaker: cuts their power.
        restart_s: until a device that died comes back.
        from_backup: whether it comes back with an older storage this time.
        on_sent: called with each update that a device made.
    """

    time: VirtualTime
    network: Network
    source: BlobSource
    runtime: Runtime
    trainer: Trainer
    task: str
    behaviour: FleetBehaviour
    breaker: Breaker
    restart_s: float
    from_backup: Callable[[], bool]
    on_sent: Callable[[str, Sent], object]


class Device:
    """Drives an agent as ``Participant`` does, under a virtual clock.

    Args:
        name: its id.
        folder: for its storage; what is there is taken up.
        surroundings: what it shares.
        rng: draws what it is like and what it does.
        holdout: whether the agent evaluates itself.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        surroundings: Surroundings,
        rng: np.random.Generator,
        *,
        holdout: bool,
    ) -> None:
        behaviour = surroundings.behaviour
        self.name, self._file = name, folder / "agent.db"
        self._around, self._rng = surroundings, rng
        self._update_s = behaviour.update_s * math.exp(behaviour.update_sigma * rng.normal())
        self._skew_s = float(rng.uniform(-behaviour.clock_skew_s, behaviour.clock_skew_s))
        self._config = AgentConfig(
            device=name,
            state_dir=folder,
            aggregator="http://simulated",
            broker=BrokerConfig(host="simulated", port=1),
            task=surroundings.task,
            holdout=holdout,
            durability="normal",
        )
        self._topic = topics.announcement(surroundings.task)
        self._agent: Agent | None = None
        self._alarm: Alarm | None = None
        self._online = self._resting = False
        self.accepted: set[UpdateKey] = set()
        self._known = b""
        self._life = 0

    @property
    def store(self) -> Store:
        """Its storage; open it only when the device does not run."""
        return Store(self._file, durability="normal")

    @property
    def settled(self) -> bool:
        """Whether every update that it made was answered."""
        return self._agent is not None and not self._agent.outbox.waiting.updates

    def start(self) -> None:
        """Switch it on."""
        self._life += 1
        try:
            store = breaking(self.store, self._around.breaker, STORE_WRITES)
            self._agent = Agent(
                self._config,
                store=store,
                source=self._around.source,
                runtime=self._around.runtime,
                transport=self,
                clock=self._clock,
                rng=self._rng,
                trainer=self._around.trainer,
            )
        except PowerCut:
            self._die()
            return
        self._known = b""
        self._later(self._stretch(self._around.behaviour.offline_s, first=True), self._connect)

    def private(self, bundle: Bundle) -> dict[str, FloatArray]:
        """Its private parameters, as they can be seen because it is simulated; empty at first."""
        store = self.store if self._agent is None else self._agent.store
        try:
            return store.private(bundle.task, bundle.manifest.private_parameters)
        finally:
            if self._agent is None:
                store.close()

    def rest(self) -> None:
        """From now on the connection holds, and nothing new is trained."""
        self._resting = True
        if not self._online and self._agent is not None:
            self._connect()

    def stop(self) -> None:
        """Switch it off for good."""
        self._life += 1
        self._disconnect()
        if self._agent is not None:
            self._agent.store.close()
            self._agent = None

    def announced(self) -> None:
        """There is a new announcement: one that waits for nothing else must hear of it."""
        if self._online and self._alarm is None:
            self._around.time.after(self._around.behaviour.latency_s, self._alive(self._wake))

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """As the agent's transport: what cannot be sent is dropped."""
        del retain
        if self._online:
            self._around.network.send(topic, payload)

    def _clock(self) -> float:
        return self._around.time() + self._skew_s

    # What happens to it

    def _connect(self) -> None:
        if self._online or self._agent is None:
            return
        self._online = True
        self._around.network.connect(self.name, self._receive)
        if not self._resting and self._around.behaviour.offline_s > 0.0:
            self._later(self._stretch(self._around.behaviour.online_s), self._drop)
        self._do(Agent.connected)

    def _drop(self) -> None:
        if self._resting:
            return
        self._disconnect()
        if self._agent is not None:
            self._do(Agent.disconnected)
        self._later(self._stretch(self._around.behaviour.offline_s), self._connect)

    def _disconnect(self) -> None:
        self._online = False
        self._around.network.disconnect(self.name)

    def _receive(self, topic: str, payload: bytes) -> None:
        receipt = Receipt.decode(payload)
        if receipt.outcome is not Outcome.REJECTED:
            self.accepted.add(UpdateKey(receipt.task, self.name, receipt.sequence))
        self._do(lambda agent: agent.receive(topic, payload))

    def _wake(self) -> None:
        self._do(self._work)

    def _work(self, agent: Agent) -> None:
        retained = self._around.network.retained.get(self._topic, b"")
        if retained != self._known:
            self._known = retained
            agent.receive(self._topic, retained)
        agent.send_due()
        if not self._resting and agent.update_due():
            base = agent.begin_update()
            if base is not None:
                agent.train_ahead(base)
                self._later(self._work_s(base), lambda: self._finish(base))

    def _finish(self, base: Base) -> None:
        def finish(agent: Agent) -> None:
            sent = agent.finish_update(base)
            if sent is not None:
                self._around.on_sent(self.name, sent)

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
        due = self._around.time() if self._unread() else agent.next_due(training=not self._resting)
        if due is not None:
            at = due if self._unread() else due - self._skew_s
            self._alarm = self._around.time.at(at, self._alive(self._rang))

    def _rang(self) -> None:
        self._alarm = None
        self._wake()

    def _unread(self) -> bool:
        return (
            self._agent is not None
            and self._agent.announcement is None
            and (self._topic in self._around.network.retained)
        )

    def _die(self) -> None:
        self._life += 1
        self._disconnect()
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if self._agent is not None:
            self._agent.store.close()
            self._agent = None
        backup = self._file.with_suffix(".backup")
        if backup.is_file() and self._around.from_backup():
            shutil.copyfile(backup, self._file)
        else:
            shutil.copyfile(self._file, backup)
        self._around.time.after(self._around.restart_s, self._alive(self.start))

    def _later(self, delay_s: float, call: Callable[[], object]) -> None:
        self._around.time.after(delay_s, self._alive(call))

    def _alive(self, call: Callable[[], object]) -> Callable[[], object]:
        """The call, if the device was not switched off or dead in the meantime."""
        life = self._life
        return lambda: call() if life == self._life else None

    def _stretch(self, mean_s: float, *, first: bool = False) -> float:
        if self._resting or (first and mean_s <= 0.0):
            return 0.0
        return float(self._rng.exponential(mean_s))
