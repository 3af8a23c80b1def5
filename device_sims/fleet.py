"""A fleet of production agents in one process, each with its own connection and its own storage.

Every device takes part once in a pass. At any time a fixed number of devices are between getting
the model and having their update answered, and each takes a random time for its local update, so
updates arrive out of order and stale, as from real devices. Passes overlap: there is no barrier.
"""

import math
import queue
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from device_sims.datasets import ContextField, Split
from device_sims.datasets.interactions import IntArray
from device_sims.drive import Drive, allow_descriptors
from edge_agent.agent import Sent
from edge_agent.base import Base
from edge_agent.config import AgentConfig, BrokerConfig, TlsFiles, parse_broker_url
from edge_agent.downloads import Downloads
from edge_agent.durable_state import DurableState
from edge_agent.interactions import Interaction
from edge_agent.participant import Participant
from edge_agent.runtimes import open_runtime
from edge_agent.task import LocalTask
from wire.delta import FloatArray

__all__ = [
    "Fleet",
    "FleetError",
    "FleetPlan",
    "Traffic",
    "as_interactions",
    "broker_config",
    "device_name",
    "fill",
    "history",
]

TRY_AGAIN_S = 0.2
SNAPSHOTS_KEPT = 64
STALLED_S = 60.0


def device_name(number: int) -> str:
    """Id of the device at a position of the fleet."""
    return f"device-{number:05d}"


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetPlan:
    """How a fleet behaves.

    Attributes:
        passes: local updates of each device, at least 1.
        concurrency: devices at work at the same time, at least 1.
        median_update_s: median of the log-normal time that a local update takes, in seconds.
        sigma: standard deviation of that time's logarithm.
        seed: of the order, the times and the agents' sampling.
    """

    passes: int
    concurrency: int
    median_update_s: float
    sigma: float
    seed: int


@dataclass(slots=True)
class Traffic:
    """Bytes so far, an entry for each update.

    Attributes:
        sent: size of the update's message; sending it again is not counted.
        received: downloaded for it: bundle files and the version, where the device lacked them.
            Announcements and receipts, some 150 bytes each, are not counted.
    """

    sent: list[int] = field(default_factory=list)
    received: list[int] = field(default_factory=list)


class FleetError(Exception):
    """The fleet cannot go on; the text says why."""


class Fleet:
    """Runs the devices through their passes.

    Args:
        directory: parent of the devices' folders.
        split: device u holds the training items and the validation item of user u; the validation
            item is the latest, so the agent keeps it out of training for its own evaluation. Where
            items repeat, the agent would keep all earlier uses of that item out too; there a device
            holds the training items only, trains on all of them, and does not evaluate itself.
        aggregator: base URL of the HTTP API.
        broker: gives a device's connection settings by its name.
        plan: how the fleet behaves.
        least_history: training items that a device needs to have anything to train on; one with
            fewer takes no part in training.

    Raises:
        DescriptorsError: the system allows fewer open files than the fleet needs.
        FleetError: no device has enough history.

    Attributes:
        on_update: called on the loop's thread after each answered update.
        traffic: what was sent and received.
    """

    def __init__(
        self,
        directory: Path,
        *,
        split: Split,
        aggregator: str,
        broker: Callable[[str], BrokerConfig],
        plan: FleetPlan,
        least_history: int,
    ) -> None:
        allow_descriptors(split.user_count)
        self._plan, self._rng = plan, np.random.default_rng(plan.seed)
        self.on_update: Callable[[], object] = lambda: None
        self._drive = Drive()
        self._reactor = self._drive.reactor
        # One folder of downloads, as behind a caching proxy. Each device's traffic is counted as
        # if it had fetched its own.
        self._source = Downloads(directory / "models", aggregator, keep_snapshots=SNAPSHOTS_KEPT)
        self._runtime = open_runtime("onnx")
        self._holdout = not split.repeats
        self._devices = [
            self._device(number, directory, aggregator, broker)
            for number in range(split.user_count)
        ]
        for number, device in enumerate(self._devices):
            fill(device.agent.store, split, number)
        lengths = np.diff(split.train.starts)
        self._trainers: IntArray = np.flatnonzero(lengths >= least_history)
        if not len(self._trainers):
            raise FleetError(
                f"no device has {least_history} training items or more, which the recommender needs"
            )
        self._queue = self._order()
        self._busy: set[int] = set()
        self._answered = 0
        self._passes_done: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._task: LocalTask
        self._private: list[Mapping[str, FloatArray]] = [{} for _ in self._devices]
        self.traffic = Traffic()

    @property
    def passes(self) -> int:
        """Local updates of each device."""
        return self._plan.passes

    @property
    def trainers(self) -> int:
        """Devices that train."""
        return len(self._trainers)

    @property
    def total(self) -> int:
        """Updates in all passes together."""
        return self._plan.passes * self.trainers

    def private_parameters(self, number: int) -> Mapping[str, FloatArray]:
        """A device's private parameters after its last update; empty before the first.

        They can be seen here because the fleet is simulated and this is its examiner's view.
        """
        return self._private[number]

    def run(self) -> Iterator[int]:
        """Connect, train, and yield 1, 2, … each time as many updates are done as make a pass.

        The fleet goes on while the caller looks at the result.

        Raises:
            FleetError: no update was answered for a long time.
        """
        for device in self._devices:
            device.start()
        self._reactor.call_soon_threadsafe(self._fill_slots)
        for _ in range(self._plan.passes):
            yield self._next_pass()

    def stop(self) -> None:
        """Finish the work in hand, disconnect every device and close its database."""
        self._reactor.call_soon_threadsafe(self._queue.clear)
        self._drive.stop(self._devices)

    def _device(
        self,
        number: int,
        directory: Path,
        aggregator: str,
        broker: Callable[[str], BrokerConfig],
    ) -> Participant:
        name = device_name(number)
        config = AgentConfig(
            device=name,
            state_dir=directory / name,
            aggregator=aggregator,
            broker=broker(name),
            holdout=self._holdout,
            # A laptop's power cut costs a simulation nothing; a sync for each update does.
            durability="normal",
        )
        return Participant(
            config,
            reactor=self._reactor,
            workers=self._drive.workers,
            source=self._source,
            runtime=self._runtime,
            automatic=False,
            on_settled=lambda: self._in_loop(self._settled, number),
            rng=np.random.default_rng([self._plan.seed, number]),
        )

    def _order(self) -> deque[int]:
        """Device numbers, every pass in an order of its own."""
        passes = (self._rng.permutation(self._trainers) for _ in range(self._plan.passes))
        return deque(int(number) for one in passes for number in one)

    def _next_pass(self) -> int:
        while True:
            before = self._answered
            try:
                return self._passes_done.get(timeout=STALLED_S)
            except queue.Empty:
                if self._answered == before:
                    raise FleetError(
                        f"no update was answered for {STALLED_S:.0f} s; "
                        "the logs of the aggregator and the broker say why"
                    ) from None

    # On the reactor's thread

    def _in_loop(self, call: Callable[..., object], *arguments: object) -> None:
        self._reactor.call_soon_threadsafe(lambda: call(*arguments))

    def _fill_slots(self) -> None:
        for _ in range(len(self._queue)):
            if len(self._busy) >= self._plan.concurrency:
                return
            number = self._queue.popleft()
            if number in self._busy:  # Its turn in the pass before is not over.
                self._queue.append(number)
                continue
            self._busy.add(number)
            self._devices[number].request_update(
                delay_s=self._delay_s, done=partial(self._trained, number)
            )

    def _delay_s(self, base: Base) -> float:
        self._task = base.task
        return float(self._rng.lognormal(math.log(self._plan.median_update_s), self._plan.sigma))

    def _retry(self, number: int) -> None:
        self._busy.discard(number)
        self._queue.appendleft(number)
        self._reactor.call_later(TRY_AGAIN_S, self._fill_slots)

    def _settled(self, number: int) -> None:
        if number not in self._busy:
            return
        self._busy.remove(number)
        self._answered += 1
        self.on_update()
        if self._answered % self.trainers == 0:
            self._passes_done.put(self._answered // self.trainers)
        self._fill_slots()

    # On a worker thread

    def _trained(self, number: int, sent: Sent | None) -> None:
        if sent is None:
            self._in_loop(self._retry, number)
            return
        self.traffic.sent.append(sent.message_bytes)
        self.traffic.received.append(sent.received_bytes)
        self._private[number] = self._devices[number].agent.private_parameters(self._task)


def broker_config(url: str, name: str, password: str | None, tls: TlsFiles) -> BrokerConfig:
    """How a device connects to a broker; without a password, as nobody in particular.

    Args:
        url: ``mqtt://host:port`` or ``mqtts://host:port``.
        name: the device's id.
        password: of the user of that name.
        tls: files for ``mqtts``.
    """
    host, port, secured = parse_broker_url(url)
    return BrokerConfig(
        host=host,
        port=port,
        username=name if password else None,
        password=password,
        tls=tls if secured else None,
    )


def fill(store: DurableState, split: Split, number: int) -> None:
    """Put a user's history on the device."""
    store.add_interactions(history(split, number))


def history(split: Split, number: int) -> list[Interaction]:
    """What a user's device knows: never the test item."""
    items, times = split.train.items_of(number), split.train.times_of(number)
    context = split.train.context_of(number)
    if not split.repeats:
        items = np.append(items, split.validation[number])
        times = np.append(times, split.validation_times[number])
        context = np.append(context, split.validation_context[number : number + 1], axis=0)
    return as_interactions(split.context, items, times, context)


def as_interactions(
    fields: Sequence[ContextField], items: IntArray, times: IntArray, context: IntArray
) -> list[Interaction]:
    """Rows of a data set as a device is told of them.

    Args:
        fields: the fields of the context.
        items: int64 [n].
        times: int64 [n].
        context: int64 [n, fields].
    """
    rows = zip(items.tolist(), times.tolist(), context.tolist(), strict=True)
    return [Interaction(item, at, _named(fields, ids)) for item, at, ids in rows]


def _named(fields: Sequence[ContextField], ids: Sequence[int]) -> dict[str, int]:
    return {field.name: value for field, value in zip(fields, ids, strict=True)}
