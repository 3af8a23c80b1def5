"""One simulation, from a scenario to what came of it."""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from device_sims.datasets import Split
from device_sims.fleet import device_name, fill
from device_sims.interrupts import interrupting
from device_sims.nature import Nature, Population
from device_sims.scenario import Faults, Scenario
from device_sims.simulation.assess import Assessor, examined, groups
from device_sims.simulation.attackers import forge_of, hostile, promoted_item
from device_sims.simulation.audit import Accepted, Audit, PrivacyWatch
from device_sims.simulation.crowd import Crowd
from device_sims.simulation.device import STORE_WRITES, Device, Surroundings
from device_sims.simulation.disk import Shortage
from device_sims.simulation.forger import Forger
from device_sims.simulation.mass import MassWatch
from device_sims.simulation.memory_store import MemoryStore
from device_sims.simulation.meter import Meter
from device_sims.simulation.mishaps import Mishaps
from device_sims.simulation.network import Network
from device_sims.simulation.old_news import OldNews
from device_sims.simulation.outcome import Measured, Outcome
from device_sims.simulation.pages import Pages
from device_sims.simulation.places import Places
from device_sims.simulation.power import Breaker
from device_sims.simulation.replay import replay_of
from device_sims.simulation.server import Server
from device_sims.simulation.source import DirectSource
from device_sims.simulation.virtual_time import START, VirtualTime
from edge_agent.agent import Sent
from edge_agent.config import AgentConfig, BrokerConfig
from edge_agent.interactions import Interaction
from edge_agent.runtimes import open_runtime
from edge_agent.trainer import Here, Trainer
from wire import topics
from wire.bundle import Bundle
from wire.delta import FloatArray
from wire.messages import Announcement, Refusal
from wire.parameters import map_parameters

__all__ = ["simulate"]

DRAIN_S = 86_400.0
DRAIN_STEP_S = 600.0
PROGRESS_STEPS = 100
AWAKE = 2_000
PATIENCE_S = 60.0
"""A round of which nothing came is over so long after the aggregator would have merged it."""

Report = Callable[[float, int], object]
Arrival = tuple[float, Sequence[Interaction]]


def simulate(
    scenario: Scenario,
    bundle: Bundle,
    split: Split,
    folder: Path,
    *,
    trainer: Trainer | None = None,
    progress: Report = lambda _share, _updates: None,
    awake: int = AWAKE,
) -> Outcome:
    """Run a scenario to its end.

    Ctrl-C ends the virtual time early: what was done until then is delivered and reported.

    Args:
        scenario: what happens.
        bundle: the task.
        split: device u has user u's interactions.
        folder: for ledger, blobs and the devices' storage; nothing may be there.
        trainer: does the work of local updates; None for one after the other.
        progress: called with the share of the time that has passed, and the updates made.
        awake: so many devices that wait are held in memory, the others in a file; it changes
            nothing but time and memory.
    """
    with threadpool_limits(1, user_api="blas"):
        return _Simulation(scenario, bundle, split, folder, trainer or Here(), awake).run(progress)


class _Simulation:
    def __init__(
        self,
        scenario: Scenario,
        bundle: Bundle,
        split: Split,
        folder: Path,
        trainer: Trainer,
        awake: int,
    ) -> None:
        self._scenario, self._bundle, self._split = scenario, bundle, split
        self._time, self._happened, faults = VirtualTime(), Counter[str](), scenario.faults
        population = Population(scenario.fleet, hours=scenario.run.hours, seed=scenario.run.seed)
        self._replay = replay_of(scenario, split)
        self._item = promoted_item(scenario.attackers, split, bundle.manifest)
        self._mishaps = Mishaps(faults, self._fault_rng(0), self._happened)
        self._network = Network(self._time, self._mishaps, scenario.service.together_s)
        self._server = Server(
            folder / "aggregator",
            bundle,
            scenario.rule,
            scenario.service,
            time=self._time,
            network=self._network,
            breaker=self._breaker("aggregator_crash", 1),
            shortage=self._shortage("aggregator_full", 6),
            admission=scenario.admission,
            restart_s=faults.restart_s,
        )
        self._created, self._accepted = 0, Accepted(bundle.task)
        self._updates, self._meter = Counter[int](), Meter()
        self._privacy, self._mass = PrivacyWatch(), MassWatch(bundle.manifest.federated)
        whose = examined(scenario.run, split.user_count)
        self._assessor = Assessor(bundle, split, self._replay, self._private, whose)
        backup_rng = self._fault_rng(2)
        natures = [population.nature(number) for number in range(split.user_count)]
        source = DirectSource(bundle, self._server.blobs, self._server.patches)
        runtime, breaker = open_runtime("onnx"), self._breaker("agent_crash", 3)
        self._around = Surroundings(
            time=self._time,
            network=self._network,
            source=source,
            runtime=runtime,
            trainer=trainer,
            task=bundle.task,
            meter=self._meter,
            breaker=breaker,
            shortage=self._shortage("agent_full", 7),
            restart_s=faults.restart_s,
            from_backup=lambda: self._count("backup", bool(backup_rng.random() < faults.backup)),
            on_sent=self._sent,
            on_accepted=self._accepted.add,
            shared=(bundle.raw_manifest, STORE_WRITES, self._mass),
            places=self._places(),
            old_news=self._old_news(),
        )
        self._crowd = Crowd(
            self._device,
            natures,
            self._around,
            Pages(folder / "devices.db"),
            awake=awake,
        )
        self._broker_rng, self._config = self._fault_rng(8), self._any_config()
        self._hostile = hostile(scenario.attackers, split.user_count)
        self._forge = forge_of(scenario.attackers, self._item or 0, self._rng(9))
        self._network.on_sent = self._look
        self._network.on_announced = self._announced
        if self._around.places is not None:
            self._around.places.on_chosen = self._chosen

    def run(self, progress: Report) -> Outcome:
        run = self._scenario.run
        self._server.start()
        self._crowd.start()
        self._plan_arrivals()
        self._plan_broker_restart()
        measured: list[Measured] = []
        steps = _moments(run.hours, run.evaluate_every_h)
        with interrupting(self._time.interrupt):
            for hours, evaluate in steps:
                self._time.run_until(START + 3600.0 * hours)
                if self._time.interrupted:
                    break
                progress(hours / run.hours, self._created)
                if evaluate:
                    measured.append(self._measure())
        self._time.interrupted = False
        self._drain()
        measured.append(self._measure())
        outcome = self._outcome(measured)
        self._crowd.close()
        self._server.close()
        return outcome

    def _device(self, number: int, nature: Nature) -> Device:
        store = MemoryStore()
        if self._replay is None:
            fill(store, self._split, number)
        else:
            store.add_interactions(self._replay.history(number))
        is_hostile = number in self._hostile
        return Device(
            number,
            self._config_of(number),
            store,
            self._around,
            nature,
            self._rng(4, number),
            watch=self._mass if self._scenario.run.checks and not is_hostile else None,
            forger=Forger(number, self._forge, self._rng(10, number)) if is_hostile else None,
        )

    def _config_of(self, number: int) -> AgentConfig:
        return replace(self._config, device=device_name(number))

    def _any_config(self) -> AgentConfig:
        return AgentConfig(
            device=device_name(0),
            state_dir=Path(os.devnull),
            aggregator="http://simulated",
            broker=BrokerConfig(host="simulated", port=1),
            task=self._bundle.task,
            holdout=self._scenario.run.holdout and not self._split.repeats,
        )

    def _plan_arrivals(self) -> None:
        if self._replay is not None:
            for number in range(len(self._crowd)):
                self._plan_arrival(number, self._replay.arrivals(number))

    def _plan_arrival(self, number: int, left: Iterator[Arrival]) -> None:
        """The next thing that a device's user does, and after that the one after."""
        if (found := next(left, None)) is not None:
            at_s, events = found

            def happens() -> None:
                self._crowd.visit(number, None, Device.write_down, events)
                self._plan_arrival(number, left)

            self._time.at(START + at_s, happens)

    def _plan_broker_restart(self) -> None:
        if often := self._mishaps.faults.broker_restarts_h:
            wait_s = float(self._broker_rng.exponential(3600.0 / often))
            self._time.after(wait_s, self._restart_broker)

    def _restart_broker(self) -> None:
        faults = self._mishaps.faults
        if not faults.broker_restarts_h:
            return
        self._count("broker_restart", True)
        self._network.restart(faults.restart_s)
        self._crowd.broken_off(faults.restart_s)
        self._time.after(faults.restart_s, self._server.reconnected)
        self._plan_broker_restart()

    def _drain(self) -> None:
        """Everything works from now on, until all updates are answered."""
        self._mishaps.faults = Faults()
        self._server.restart_s = 0.0
        for breaker in (self._server.breaker, self._around.breaker):
            breaker.probability = 0.0
        for shortage in (self._server.shortage, self._around.shortage):
            shortage.probability = 0.0
        self._crowd.rest()
        end = self._time() + DRAIN_S
        while True:
            # Once in any case: who still trains has nothing to be answered yet.
            self._time.run_until(self._time() + DRAIN_STEP_S)
            if not self._crowd.unsettled or self._time() >= end:
                return

    def _outcome(self, measured: list[Measured]) -> Outcome:
        server, task, split = self._server, self._bundle.task, self._split
        tallies = server.reports.tallies(task)
        federated = self._federated()
        ranks = self._assessor.rank(federated, self._now_s()) if federated else None
        promoted = self._item if federated else None
        return Outcome(
            scenario=self._scenario.name,
            seed=self._scenario.run.seed,
            devices=len(self._crowd),
            quality=tuple(measured),
            groups=groups(self._crowd.natures, split.train.lengths, self._updates, ranks),
            exposure=self._assessor.exposure(federated, promoted) if promoted is not None else None,
            staleness={t.key: t.value for t in tallies if t.kind == "staleness"},
            refused={Refusal(t.key).slug: t.value for t in tallies if t.kind == "refusal"},
            faults={kind: count for kind, count in sorted(self._happened.items()) if count},
            model=server.ledger.newest_version(task).digest,
            audit=Audit.of(
                server.ledger,
                server.blobs,
                self._bundle,
                created=self._created,
                accepted=self._accepted,
                unanswered=self._crowd.unsettled,
                leaks=self._privacy.leaks,
                mass=self._mass.broken,
            ),
        )

    def _federated(self) -> Mapping[str, FloatArray]:
        """The newest published parameters; empty while there are none."""
        reports, task = self._server.reports, self._bundle.task
        publication = reports.publication(task, reports.newest_publication(task))
        return map_parameters(self._server.blobs.path(publication.sha256)) if publication else {}

    def _measure(self) -> Measured:
        federated = self._federated()
        newest = self._server.reports.newest_publication(self._bundle.task)
        return self._assessor.measure(
            federated,
            now_s=self._now_s(),
            version=newest if federated else -1,
            updates=self._created,
            meter=self._meter,
        )

    def _now_s(self) -> float:
        return self._time() - START

    def _private(self, user: int) -> Mapping[str, FloatArray]:
        return self._crowd.private(user, self._bundle)

    def _sent(self, number: int, _sent: Sent) -> None:
        self._created += 1
        self._updates[number] += 1

    def _look(self, topic: str, payload: bytes) -> None:
        if self._scenario.run.checks:
            number = _number(topics.device_of(topic))
            self._privacy.look(payload, self._private(number).values())

    def _announced(self) -> None:
        payload = self._network.retained[topics.announcement(self._bundle.task)]
        if self._around.old_news is not None:
            self._around.old_news.announced(payload)
        if self._around.places is not None:
            self._around.places.announced(Announcement.decode(payload).version)
        self._crowd.announced()

    def _chosen(self, number: int) -> None:
        # Later in the same instant: another device is still in the middle of something.
        self._time.after(0.0, self._crowd.call(number, None, Device.chosen))

    def _places(self) -> Places | None:
        selection, rule = self._scenario.selection, self._scenario.rule
        if not selection.places:
            return None
        return Places(
            places=selection.places,
            rounds=selection.rounds,
            patience_s=rule.max_wait_s + PATIENCE_S,
            time=self._time,
            rng=self._rng(11),
        )

    def _old_news(self) -> OldNews | None:
        low, high = self._scenario.selection.behind_versions
        return OldNews(low, high, self._rng(12)) if high else None

    def _breaker(self, kind: str, stream: int) -> Breaker:
        probability = getattr(self._scenario.faults, kind)
        return Breaker(probability, self._fault_rng(stream), lambda: self._count(kind, True))

    def _shortage(self, kind: str, stream: int) -> Shortage:
        faults = self._scenario.faults
        return Shortage(
            getattr(faults, kind),
            faults.full_s,
            self._time,
            self._fault_rng(stream),
            lambda: self._count(kind, True),
        )

    def _count(self, kind: str, happens: bool) -> bool:
        self._happened[kind] += happens
        return happens

    def _rng(self, *stream: int) -> np.random.Generator:
        return np.random.default_rng([self._scenario.run.seed, *stream])

    def _fault_rng(self, stream: int) -> np.random.Generator:
        return self._rng(stream, self._scenario.faults.seed)


def _number(device: str) -> int:
    return int(device.rpartition("-")[2])


def _moments(hours: float, every_h: float) -> list[tuple[float, bool]]:
    """When to show progress, and whether to evaluate then."""
    shown = {hours * step / PROGRESS_STEPS: False for step in range(1, PROGRESS_STEPS + 1)}
    if every_h > 0.0:
        # With room for rounding: 1.2 hours are twelve tenths.
        count = int(hours / every_h * (1.0 + 1e-9))
        shown |= {min(every_h * n, hours): True for n in range(count + 1)}
    return sorted(shown.items())
