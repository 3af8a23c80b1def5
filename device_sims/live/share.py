"""The part of a fleet that one process runs, and what that process says of it."""

import logging
import math
import os
import resource
import time
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from device_sims.datasets import Split
from device_sims.drive import Drive, allow_descriptors
from device_sims.fleet import broker_config, device_name, history
from device_sims.live.access import Access
from device_sims.live.device import Around, Device
from device_sims.live.pace import Pace
from device_sims.live.tally import Tally
from device_sims.nature import Population
from device_sims.scenario import Faults, Scenario
from device_sims.simulation.disk import Shortage
from device_sims.simulation.mishaps import Mishaps
from device_sims.simulation.power import Breaker
from device_sims.simulation.replay import replay_of
from edge_agent.config import AgentConfig
from edge_agent.downloads import Downloads
from edge_agent.runtimes import open_runtime
from edge_agent.runtimes.trial import memory_bytes
from edge_agent.tls import tls_context
from wire.bundle import read_bundle
from wire.delta import FloatArray

__all__ = ["Begin", "Count", "Opened", "Order", "Plan", "Told", "work"]

SNAPSHOTS_KEPT = 64
CONNECTIONS_A_SECOND = 150.0
"""That a process asks for at the start: a broker hashes a password for each of them."""
OPENED_AT_A_TIME = 25
STREAM = 20
"""Sets the draws of real devices apart from all others of a scenario."""


class Order(Enum):
    """What a parent asks of a process; each is answered with the class in brackets."""

    COUNT = auto()
    """How far it is (Count)."""
    TELL = auto()
    """Everything (Told)."""
    REST = auto()
    """Train no more, connect, and send what waits (Count)."""
    STOP = auto()
    """Close everything and end (Told)."""


@dataclass(frozen=True, slots=True)
class Begin:
    """The order to begin; not answered.

    Attributes:
        at: unix seconds.
    """

    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a process is to run.

    Attributes:
        numbers: of its devices.
        scenario: what they do.
        speed_up: how fast.
        bundle: folder of the task.
        split: the data.
        folder: for the devices' storage, and another one for downloads.
        downloads: likewise; not shared with another process.
        log: file for what agents complain of.
        broker: URL.
        aggregator: URL.
        access: how devices are let in at both.
    """

    numbers: Sequence[int]
    scenario: Scenario
    speed_up: float
    bundle: Path
    split: Split
    folder: Path
    downloads: Path
    log: Path
    broker: str
    aggregator: str
    access: Access


@dataclass(frozen=True, slots=True)
class Opened:
    """How many of its devices a process has opened; all of them before it takes an order."""

    devices: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """How far a process is.

    Attributes:
        connected: devices that the broker has accepted.
        updates: made.
        answered: of those.
        unsettled: updates that are being made, or wait for an answer.
        took_part: devices that had an update accepted.
        memory_bytes: of the process, at its largest.
        cpu_s: that the process has used.
        errors: that agents wrote into the log.
    """

    connected: int
    updates: int
    answered: int
    unsettled: int
    took_part: int
    memory_bytes: int
    cpu_s: float
    errors: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """Everything that a process knows of its devices; see ``Tally``."""

    updates: Mapping[int, int]
    accepted: "array[int]"
    waiting: int
    bytes_up: int
    bytes_down: int
    energy_j: float
    private: Mapping[int, Mapping[str, FloatArray]]
    faults: Mapping[str, int]
    leaks: int
    mass: int


def work(pipe: Connection, plan: Plan) -> None:
    """The life of a process. It ends with the parent."""
    logging.basicConfig(
        filename=plan.log,
        level=logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    try:
        with threadpool_limits(1, user_api="blas"):
            _Share(pipe, plan).serve()
    except (EOFError, BrokenPipeError):
        # The parent is gone, and nobody waits for a goodbye.
        os._exit(1)
    except Exception as error:
        logging.getLogger(__name__).exception("the process ends")
        pipe.send(error)


class _Errors(logging.Handler):
    """Counts what is logged."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.count = 0

    def emit(self, _record: logging.LogRecord) -> None:
        self.count += 1


class _Share:
    def __init__(self, pipe: Connection, plan: Plan) -> None:
        allow_descriptors(len(plan.numbers))
        self._pipe, self._plan, self._errors = pipe, plan, _Errors()
        logging.getLogger().addHandler(self._errors)
        scenario, bundle = plan.scenario, read_bundle(plan.bundle)
        self._drive, self._tally = Drive(), Tally.of(bundle.manifest)
        faults, happened = scenario.faults, self._tally.faults
        rng = np.random.default_rng([scenario.run.seed, STREAM, faults.seed])
        self._around = Around(
            drive=self._drive,
            # One folder of downloads, as behind a caching proxy. Each device's traffic is counted
            # as if it had fetched its own.
            source=Downloads(
                plan.downloads,
                plan.aggregator,
                tls=tls_context(plan.access.tls),
                keep_snapshots=SNAPSHOTS_KEPT,
            ),
            runtime=open_runtime("onnx"),
            tally=self._tally,
            breaker=Breaker(faults.agent_crash, rng, partial(happened.update, ["agent_crash"])),
            restart_s=faults.restart_s,
            shortage=Shortage(
                faults.agent_full,
                faults.full_s,
                lambda: plan.speed_up * time.monotonic(),
                rng,
                partial(happened.update, ["agent_full"]),
            ),
            mishaps=Mishaps(faults, rng, happened),
            checks=scenario.run.checks,
            pace=Pace(plan.speed_up, math.inf),
            spread_s=len(plan.numbers) / CONNECTIONS_A_SECOND,
        )
        self._population = Population(
            scenario.fleet, hours=scenario.run.hours, seed=scenario.run.seed
        )
        self._replay = replay_of(scenario, plan.split)
        self._task = bundle.task
        self._devices: list[Device] = []

    def serve(self) -> None:
        self._open()
        while True:
            order = self._pipe.recv()
            if isinstance(order, Begin):
                self._begin(order)
            elif order is Order.TELL:
                self._pipe.send(self._told())
            elif order is Order.STOP:
                self._stop()
                self._pipe.send(self._told())
                return
            else:
                if order is Order.REST:
                    self._rest()
                self._pipe.send(self._count())

    def _open(self) -> None:
        for at, number in enumerate(self._plan.numbers):
            if at % OPENED_AT_A_TIME == 0:
                self._pipe.send(Opened(at))
            self._devices.append(self._device(number))
        self._pipe.send(Opened(len(self._devices)))

    def _device(self, number: int) -> Device:
        plan, replay = self._plan, self._replay
        return Device(
            number,
            self._config(number),
            self._around,
            self._population.nature(number),
            history(plan.split, number) if replay is None else replay.history(number),
            iter(()) if replay is None else replay.arrivals(number),
            np.random.default_rng([plan.scenario.run.seed, STREAM, number]),
        )

    def _config(self, number: int) -> AgentConfig:
        plan, access, name = self._plan, self._plan.access, device_name(number)
        return AgentConfig(
            device=name,
            state_dir=plan.folder / name,
            aggregator=plan.aggregator,
            broker=broker_config(plan.broker, name, access.passwords.get(name), access.tls),
            task=self._task,
            holdout=plan.scenario.run.holdout and not plan.split.repeats,
            # A kill keeps what was written; only a power cut of this machine would not.
            durability="normal",
        )

    def _begin(self, order: Begin) -> None:
        self._around.pace = Pace(self._plan.speed_up, order.at)
        for device in self._devices:
            self._drive.reactor.call_soon_threadsafe(device.begin)

    def _rest(self) -> None:
        """Everything works from now on."""
        around = self._around
        around.breaker.probability = around.shortage.probability = 0.0
        around.mishaps.faults = Faults()
        around.resting = True
        for device in self._devices:
            self._drive.reactor.call_soon_threadsafe(device.rest)

    def _stop(self) -> None:
        self._drive.stop([one.participant for one in self._devices if one.participant])

    def _waiting(self) -> int:
        return sum(device.waiting for device in self._devices)

    def _count(self) -> Count:
        used = resource.getrusage(resource.RUSAGE_SELF)
        return Count(
            connected=sum(device.is_connected for device in self._devices),
            updates=self._tally.updates.total(),
            answered=self._tally.answered,
            # In this order: what is made meanwhile is seen in one of the two.
            unsettled=sum(device.is_training for device in self._devices) + self._waiting(),
            took_part=len(self._tally.took_part),
            memory_bytes=memory_bytes("VmHWM"),
            cpu_s=used.ru_utime + used.ru_stime,
            errors=self._errors.count,
        )

    def _told(self) -> Told:
        tally = self._tally
        return Told(
            updates=dict(tally.updates),
            accepted=tally.accepted[:],
            waiting=self._waiting(),
            bytes_up=tally.meter.bytes_up,
            bytes_down=tally.meter.bytes_down,
            energy_j=tally.meter.energy_j,
            private=dict(tally.private),
            faults=dict(tally.faults),
            leaks=tally.privacy.leaks,
            mass=tally.mass.broken,
        )
