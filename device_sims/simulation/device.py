"""One simulated device: the production agent, and a connection and a power that come and go."""

import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from aggregator.ledger import UpdateKey
from device_sims.nature import Nature, Stretch
from device_sims.simulation.disk import Disk, Shortage
from device_sims.simulation.forger import Forger
from device_sims.simulation.mass import MassWatch
from device_sims.simulation.meter import Meter
from device_sims.simulation.network import Network
from device_sims.simulation.old_news import OldNews
from device_sims.simulation.places import Places
from device_sims.simulation.power import Breaker, PowerCut, breaking
from device_sims.simulation.virtual_time import START, Alarm, VirtualTime
from edge_agent.agent import Agent, Sent
from edge_agent.base import Base
from edge_agent.config import AgentConfig, BrokerConfig
from edge_agent.downloads import BlobSource
from edge_agent.errors import StoreError
from edge_agent.interactions import Interaction
from edge_agent.participant import STORE_RETRY_S
from edge_agent.runtimes import Runtime
from edge_agent.store import Store
from wire import topics
from wire.bundle import Bundle
from wire.delta import FloatArray
from wire.messages import Outcome, Receipt, Refusal

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
BROKER_SPREAD_S = 5.0
"""Devices whose broker came back connect within so many seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What every device of a simulation shares.

    Attributes:
        time: the clock.
        network: to the aggregator.
        source: of models.
        runtime: trains.
        task: 32 hex characters.
        meter: counts what taking part costs.
        breaker: cuts their power.
        shortage: fills their disks.
        restart_s: until a device that died comes back.
        from_backup: whether it comes back with an older storage this time.
        on_sent: called with each update that a device made.
        places: are to be had before an update begins; None where there is always one.
        old_news: what updates start from; None for the newest version.
    """

    time: VirtualTime
    network: Network
    source: BlobSource
    runtime: Runtime
    task: str
    meter: Meter
    breaker: Breaker
    shortage: Shortage
    restart_s: float
    from_backup: Callable[[], bool]
    on_sent: Callable[[str, Sent], object]
    places: Places | None = None
    old_news: OldNews | None = None


class Device:
    """Drives an agent as ``Participant`` does, under a virtual clock.

    Args:
        name: its id.
        folder: for its storage; what is there is taken up.
        surroundings: what it shares.
        nature: what it is like.
        rng: draws what it does.
        holdout: whether the agent evaluates itself.
        watch: looks at what its storage does; None for nobody.
        forger: forges what it sends; None for an honest device.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        surroundings: Surroundings,
        nature: Nature,
        rng: np.random.Generator,
        *,
        holdout: bool,
        watch: MassWatch | None = None,
        forger: Forger | None = None,
    ) -> None:
        self.name, self._file = name, folder / "agent.db"
        self._around, self.nature, self._rng = surroundings, nature, rng
        self._watch, self._forger = watch, forger
        self._base: Base | None = None
        self._disk = Disk(surroundings.shortage, _no_space)
        self._link, self._session = nature.conditions, 0
        self._stretch = Stretch(0.0, 0.0, nature.conditions)
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
        self._online = self._resting = self._present = self._waits = False
        self.accepted: set[UpdateKey] = set()
        self._known = b""
        self._life = 0

    @property
    def store(self) -> Store:
        """Its storage; open it only when the device does not run."""
        return Store(self._file, durability="normal")

    @property
    def settled(self) -> bool:
        """Whether every update that it made was answered; those of one that left never are."""
        if not self._present:
            return True
        return self._agent is not None and not self._agent.outbox.waiting.updates

    def join(self) -> None:
        """Switch it on when it is there for the first time."""
        self._later(max(0.0, self.nature.joins_s - self._now_s()), self.start)

    def start(self) -> None:
        """Switch it on, unless the run is over and it was never there."""
        if self._resting and not self._present:
            return
        self._present = True
        self._life += 1
        try:
            self._agent = Agent(
                self._config,
                store=self._fallible(self.store),
                source=self._around.source,
                runtime=self._around.runtime,
                transport=self,
                clock=self._clock,
                rng=self._rng,
            )
        except (PowerCut, StoreError):
            self._die()
            return
        self._known = b""
        self._await_connection()

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
            self._await_connection()

    def broken_off(self, down_s: float) -> None:
        """The broker is gone; it comes back after ``down_s``."""
        if not self._online:
            return
        stretch = self._stretch
        self._disconnect()
        self._do(Agent.disconnected)
        self._later(self._back_s(down_s), lambda: self._connect(stretch))

    def stop(self) -> None:
        """Switch it off for good."""
        self._life += 1
        self._disconnect()
        self._give_place_back(failed=True)
        if self._agent is not None:
            self._agent.store.close()
            self._agent = None

    def announced(self) -> None:
        """There is a new announcement: one that waits for nothing else must hear of it."""
        if self._online and self._alarm is None and not self._waits:
            self._around.time.after(self._link.latency_s, self._alive(self._wake))

    def chosen(self) -> None:
        """It has the place that it waited for."""
        self._waits = False
        self._later(self._link.latency_s, self._wake)

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
        store = self.store if self._agent is None else self._agent.store
        try:
            store.add_interactions(events)
        except StoreError:
            later_s = STORE_RETRY_S
        except PowerCut:
            later_s = self._around.restart_s + STORE_RETRY_S
            self._die()
        if self._agent is None and later_s is None:
            store.close()
        if later_s is not None:
            self._around.time.after(later_s, lambda: self.write_down(events))

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
        if self._resting:
            self._connect(Stretch(now_s, math.inf, self.nature.conditions))
            return
        stretch = self.nature.next_stretch(now_s, self._rng)
        if stretch is not None:
            self._later(stretch.from_s - now_s, lambda: self._connect(stretch))
        elif self.nature.trace is None or now_s >= self.nature.leaves_s:
            self._present = False
            self.stop()

    def _connect(self, stretch: Stretch) -> None:
        now_s = self._now_s()
        if self._online or self._agent is None:
            return
        if now_s >= stretch.to_s and not self._resting:
            self._await_connection()
            return
        if (down_s := self._around.network.down_s) > 0.0:
            self._later(self._back_s(down_s), lambda: self._connect(stretch))
            return
        self._online, self._stretch, self._link = True, stretch, stretch.conditions
        self._session += 1
        self._around.network.connect(self.name, self._receive, self._link)
        if math.isfinite(stretch.to_s):
            session = self._session
            self._later(stretch.to_s - now_s, lambda: self._drop(session))
        self._do(Agent.connected)

    def _drop(self, session: int) -> None:
        if self._resting or not self._online or session != self._session:
            return
        self._disconnect()
        self._do(Agent.disconnected)
        self._await_connection()

    def _disconnect(self) -> None:
        self._online = self._waits = False
        self._around.network.disconnect(self.name)
        if self._around.places is not None:
            self._around.places.offline(self.name)

    def _back_s(self, down_s: float) -> float:
        """When it tries a broker again that is gone for so long: not all at once."""
        return down_s + float(self._rng.uniform(0.0, BROKER_SPREAD_S))

    def _receive(self, topic: str, payload: bytes) -> None:
        receipt = Receipt.decode(payload)
        if receipt.outcome is not Outcome.REJECTED:
            self.accepted.add(UpdateKey(receipt.task, self.name, receipt.sequence))
        elif self._around.places is not None and receipt.reason is not Refusal.TOO_STALE:
            # Nobody waits any more for what comes too late.
            self._around.places.refused()
        self._do(lambda agent: agent.receive(topic, payload))

    def _wake(self) -> None:
        self._do(self._work)

    def _work(self, agent: Agent) -> None:
        retained = self._around.network.retained.get(self._topic)
        if retained is not None and retained != self._known:
            agent.receive(self._topic, retained)
            self._known = retained
        agent.send_due()
        if not self._resting and agent.update_due() and self._has_place():
            self._begin(agent)

    def _begin(self, agent: Agent) -> None:
        before = agent.received_bytes
        base = self._begin_from(agent)
        if base is None:
            self._give_place_back(failed=True)
            return
        self._base = base
        download_s = (agent.received_bytes - before) / self._link.down_bytes_s
        train_s = self._link.update_s
        self._later(download_s + train_s, lambda: self._finish(base, train_s))

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
        self._waits = self._around.places is not None and not self._around.places.ask(self.name)
        return not self._waits

    def _give_place_back(self, *, failed: bool) -> None:
        if self._around.places is not None:
            self._around.places.done(self.name, failed=failed)

    def _finish(self, base: Base, train_s: float) -> None:
        self._around.meter.trained(self.nature, train_s)

        def finish(agent: Agent) -> None:
            sent = agent.finish_update(base)
            self._give_place_back(failed=sent is None)
            if sent is not None:
                self._around.meter.received(self.nature, sent.received_bytes)
                self._around.on_sent(self.name, sent)

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
            self._alarm = self._around.time.at(at, self._alive(self._rang))

    def _due(self, agent: Agent) -> float | None:
        due = agent.next_due(training=not self._resting and not self._waits)
        return None if due is None else due - self.nature.skew_s

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
        self._give_place_back(failed=True)
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

    def _fallible(self, store: Store) -> Any:
        watched = store if self._watch is None else self._watch.over(store)
        full = breaking(watched, self._disk, STORE_WRITES)
        return breaking(full, self._around.breaker, STORE_WRITES)


def _no_space() -> Exception:
    return StoreError("the database failed: database or disk is full (simulated)")
