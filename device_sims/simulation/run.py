"""One simulation, from a scenario to what came of it."""

import hashlib
import json
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from aggregator.ledger import UpdateKey
from device_sims.datasets import Split
from device_sims.examiner import Examiner
from device_sims.fleet import device_name, fill
from device_sims.scenario import Faults, Scenario
from device_sims.simulation.audit import Audit, PrivacyWatch
from device_sims.simulation.device import Device, Surroundings
from device_sims.simulation.network import Network
from device_sims.simulation.power import Breaker
from device_sims.simulation.server import Server
from device_sims.simulation.source import DirectSource
from device_sims.simulation.virtual_time import START, VirtualTime
from edge_agent.agent import Sent
from edge_agent.runtimes import open_runtime
from wire.bundle import Bundle
from wire.delta import FloatArray
from wire.parameters import map_parameters

__all__ = ["Measured", "Outcome", "simulate"]

DRAIN_S = 86_400.0
DRAIN_STEP_S = 600.0
PROGRESS_STEPS = 100

Report = Callable[[float, int], object]


@dataclass(frozen=True, slots=True)
class Measured:
    """Quality at a moment, on the test items.

    Attributes:
        hours: virtual time since the start.
        version: the newest one that devices were told about.
        updates: made so far.
        bytes_up: sent so far, every attempt counted.
        hr_at_10: share of devices whose item is among the first ten.
        ndcg_at_10: with its rank.
        validation_ndcg_at_10: the same on the validation items, by which a moment is picked.
    """

    hours: float
    version: int
    updates: int
    bytes_up: int
    hr_at_10: float
    ndcg_at_10: float
    validation_ndcg_at_10: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a simulation.

    Attributes:
        scenario: its name.
        seed: of everything drawn.
        devices: how many there are.
        quality: over time; the last one after everything was delivered.
        staleness: how many merged updates had which staleness.
        faults: how many happened, by kind.
        audit: what must hold.
        model: digest of the newest version.
    """

    scenario: str
    seed: int
    devices: int
    quality: tuple[Measured, ...]
    staleness: Mapping[int, int]
    faults: Mapping[str, int]
    audit: Audit
    model: str

    def to_dict(self) -> dict[str, Any]:
        """As a JSON-ready map, with its own digest: equal runs have equal ones."""
        values = {**asdict(self), "staleness": sorted(self.staleness.items())}
        raw = json.dumps(values, sort_keys=True).encode()
        return {**values, "digest": hashlib.sha256(raw).hexdigest()}


def simulate(
    scenario: Scenario,
    bundle: Bundle,
    split: Split,
    folder: Path,
    *,
    progress: Report = lambda _share, _updates: None,
) -> Outcome:
    """Run a scenario to its end.

    Ctrl-C ends the virtual time early: what was done until then is delivered and reported.

    Args:
        scenario: what happens.
        bundle: the task.
        split: device u has user u's interactions.
        folder: for ledger, blobs and the devices' storage; nothing may be there.
        progress: called with the share of the time that has passed, and the updates made.
    """
    with threadpool_limits(1, user_api="blas"):
        return _Simulation(scenario, bundle, split, folder).run(progress)


class _Simulation:
    def __init__(self, scenario: Scenario, bundle: Bundle, split: Split, folder: Path) -> None:
        self._scenario, self._bundle, self._split = scenario, bundle, split
        self._time, self._happened = VirtualTime(), Counter[str]()
        self._network = Network(
            self._time, scenario.fleet, scenario.faults, self._rng(0), self._happened
        )
        self._server = Server(
            folder / "aggregator",
            bundle,
            scenario.rule,
            time=self._time,
            network=self._network,
            breaker=self._breaker("aggregator_crash", 1),
            restart_s=scenario.faults.restart_s,
        )
        self._created: list[UpdateKey] = []
        self._bytes_up = 0
        self._watch = PrivacyWatch()
        self._examiner = Examiner(bundle, split)
        backup_rng, backup = self._rng(2), scenario.faults.backup
        self._device_breaker = self._breaker("agent_crash", 3)
        self._around = Surroundings(
            time=self._time,
            network=self._network,
            source=DirectSource(bundle, self._server.blobs, self._server.patches),
            runtime=open_runtime("onnx"),
            task=bundle.task,
            behaviour=scenario.fleet,
            breaker=self._device_breaker,
            restart_s=scenario.faults.restart_s,
            from_backup=lambda: self._count("backup", bool(backup_rng.random() < backup)),
            on_sent=self._sent,
        )
        self._devices = [self._device(number, folder) for number in range(split.user_count)]
        self._network.on_sent = self._look
        self._network.on_announced = self._announced

    def run(self, progress: Report) -> Outcome:
        run = self._scenario.run
        self._server.start()
        for device in self._devices:
            device.start()
        measured: list[Measured] = []
        steps = _moments(run.hours, run.evaluate_every_h)
        with _interrupting(self._time):
            for hours, evaluate in steps:
                self._time.run_until(START + 3600.0 * hours)
                if self._time.interrupted:
                    break
                progress(hours / run.hours, len(self._created))
                if evaluate:
                    measured.append(self._measure())
        self._time.interrupted = False
        self._drain()
        measured.append(self._measure())
        outcome = self._outcome(measured)
        for device in self._devices:
            device.stop()
        self._server.close()
        return outcome

    def _device(self, number: int, folder: Path) -> Device:
        home = folder / "devices" / device_name(number)
        home.mkdir(parents=True)
        device = Device(
            device_name(number),
            home,
            self._around,
            self._rng(4, number),
            holdout=not self._split.repeats,
        )
        store = device.store
        fill(store, self._split, number)
        store.close()
        return device

    def _drain(self) -> None:
        """Everything works from now on, until all updates are answered."""
        self._network.faults = Faults()
        self._server.restart_s = 0.0
        for breaker in (self._server.breaker, self._device_breaker):
            breaker.probability = 0.0
        for device in self._devices:
            device.rest()
        end = self._time() + DRAIN_S
        while self._time() < end and not all(device.settled for device in self._devices):
            self._time.run_until(self._time() + DRAIN_STEP_S)
        self._time.run_until(self._time() + DRAIN_STEP_S)

    def _outcome(self, measured: list[Measured]) -> Outcome:
        server, task = self._server, self._bundle.task
        tallies = server.reports.tallies(task)
        return Outcome(
            scenario=self._scenario.name,
            seed=self._scenario.run.seed,
            devices=len(self._devices),
            quality=tuple(measured),
            staleness={t.key: t.value for t in tallies if t.kind == "staleness"},
            faults={kind: count for kind, count in sorted(self._happened.items()) if count},
            model=server.ledger.newest_version(task).digest,
            audit=Audit.of(
                server,
                self._bundle,
                created=self._created,
                accepted={key for device in self._devices for key in device.accepted},
                unanswered=sum(not device.settled for device in self._devices),
                leaks=self._watch.leaks,
            ),
        )

    def _measure(self) -> Measured:
        version = self._server.reports.newest_publication(self._bundle.task)
        publication = self._server.reports.publication(self._bundle.task, version)
        if publication is None:
            # The aggregator has not come up yet.
            return Measured(self._hours(), -1, len(self._created), self._bytes_up, 0.0, 0.0, 0.0)
        federated = map_parameters(self._server.blobs.path(publication.sha256))
        validation, test = self._examiner.examine(federated, self._private)
        return Measured(
            hours=self._hours(),
            version=version,
            updates=len(self._created),
            bytes_up=self._bytes_up,
            hr_at_10=test.hr_at_10,
            ndcg_at_10=test.ndcg_at_10,
            validation_ndcg_at_10=validation.ndcg_at_10,
        )

    def _hours(self) -> float:
        return (self._time() - START) / 3600.0

    def _private(self, user: int) -> Mapping[str, FloatArray]:
        return self._devices[user].private(self._bundle)

    def _sent(self, device: str, sent: Sent) -> None:
        self._created.append(UpdateKey(self._bundle.task, device, sent.sequence))

    def _look(self, topic: str, payload: bytes) -> None:
        self._bytes_up += len(payload)
        number = int(topic.split("/")[3].rpartition("-")[2])
        self._watch.look(payload, self._private(number).values())

    def _announced(self) -> None:
        for device in self._devices:
            device.announced()

    def _breaker(self, kind: str, stream: int) -> Breaker:
        probability = getattr(self._scenario.faults, kind)
        return Breaker(probability, self._rng(stream), lambda: self._count(kind, True))

    def _count(self, kind: str, happens: bool) -> bool:
        self._happened[kind] += happens
        return happens

    def _rng(self, *stream: int) -> np.random.Generator:
        return np.random.default_rng([self._scenario.run.seed, *stream])


@contextmanager
def _interrupting(time: VirtualTime) -> Iterator[None]:
    """Ctrl-C waits for what is happening: in the middle of it nothing would be consistent."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, lambda _signal, _frame: time.interrupt())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _moments(hours: float, every_h: float) -> list[tuple[float, bool]]:
    """When to show progress, and whether to evaluate then."""
    shown = {hours * step / PROGRESS_STEPS: False for step in range(1, PROGRESS_STEPS + 1)}
    if every_h > 0.0:
        shown |= {every_h * n: True for n in range(int(hours / every_h) + 1)}
    return sorted(shown.items())
