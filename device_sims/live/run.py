"""One real run of a scenario, from its data to what came of it."""

import secrets
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from aggregator.blobs import FolderBlobs
from aggregator.ledger import Ledger, open_database
from device_sims.brokers import start_broker
from device_sims.datasets import split_latest
from device_sims.examiner import newest_version
from device_sims.fleet import device_name
from device_sims.interrupts import interrupting
from device_sims.live.access import Access
from device_sims.live.feasible import check_feasible, left_out
from device_sims.live.pace import Pace, hurried
from device_sims.live.share import Count, Plan, Told
from device_sims.live.shares import Shares
from device_sims.live.troubles import Troubles
from device_sims.nature import Population
from device_sims.scenario import Scenario, ScenarioError, load_interactions
from device_sims.service import USER, AggregatorClient, AggregatorProcess
from device_sims.simulation.assess import Assessor, examined, groups
from device_sims.simulation.audit import Accepted, Audit
from device_sims.simulation.meter import Meter
from device_sims.simulation.outcome import Measured, Outcome
from device_sims.simulation.replay import replay_of
from device_sims.simulation.workshop import build_task
from edge_agent.config import TlsFiles
from edge_agent.tls import tls_context
from wire.bundle import Bundle
from wire.delta import FloatArray

__all__ = ["UNCHECKED", "Live", "LiveSettings", "Seen", "run_live"]

TICK_S = 0.25
DRAIN_S = 180.0
STREAM = 21
"""Sets the draws of real faults apart from all others of a scenario."""
UNCHECKED = ("lost", "twice", "unmerged", "not_the_fold")
"""Invariants that only the aggregator's ledger can tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveSettings:
    """How a scenario is run.

    Attributes:
        out: an empty folder.
        broker: ``auto``, ``mosquitto``, ``embedded`` or a URL.
        access: how to be let in at a broker's URL and at ``aggregator``.
        aggregator: URL of a running one; None starts one.
        processes: that share the devices, at least 1.
        speed_up: scenario seconds in a second, above 0.
    """

    out: Path
    broker: str = "auto"
    access: Access = field(default_factory=Access)
    aggregator: str | None = None
    processes: int = 1
    speed_up: float = 1.0


@dataclass(slots=True)
class Seen:
    """What was seen of the fleet on the way.

    Attributes:
        counts: how far each process is.
        connected: the most devices that were connected at a moment.
    """

    counts: list[Count] = field(default_factory=list)
    connected: int = 0

    def see(self, counts: list[Count]) -> None:
        """Look again."""
        self.counts = counts
        self.connected = max(self.connected, self.sum("connected"))

    def sum(self, name: str) -> Any:
        """One number of a ``Count``, over all processes."""
        return sum(getattr(count, name) for count in self.counts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """What came of a real run.

    Attributes:
        outcome: as of a simulation.
        left_out: what the scenario asks for and was not done, a sentence each.
        unchecked: invariants that nobody could look at; zero in the outcome.
        connected: the most devices that were connected at a moment.
        took_part: devices that had an update accepted.
        stopped: whether it was ended early.
        wall_s: how long devices trained, on the wall.
        memory_bytes: of all processes of the fleet, each at its largest.
        cpu_s: that they used.
        errors: that agents wrote into the logs ``agents-*.log``.
    """

    outcome: Outcome
    left_out: Sequence[str]
    unchecked: Sequence[str]
    connected: int
    took_part: int
    stopped: bool
    wall_s: float
    memory_bytes: int
    cpu_s: float
    errors: int


def run_live(
    scenario: Scenario,
    settings: LiveSettings,
    *,
    enough: Callable[[Seen], bool] = lambda _seen: False,
) -> Live:
    """Run a scenario with real agents, for as long as it says.

    Ctrl-C ends it early: what was done until then is delivered and reported. A second one stops.

    Args:
        scenario: what happens.
        settings: how.
        enough: asked several times a second whether to end it early.

    Raises:
        DatasetError: the data or a trace cannot be loaded.
        ExportError: the recommender cannot be exported.
        RecommenderError: it refuses its options, or does not fit the data.
        ScenarioError: the scenario cannot be run for real, or the aggregator has not its task.
        BrokerError: the broker cannot be started or reached.
        FleetError: a process of the fleet ended.
    """
    with threadpool_limits(1, user_api="blas"), ExitStack() as stack:
        return _Run(hurried(scenario, settings.speed_up), settings, enough, stack).run()


class _Run:
    def __init__(
        self,
        scenario: Scenario,
        settings: LiveSettings,
        enough: Callable[[Seen], bool],
        stack: ExitStack,
    ) -> None:
        self._scenario, self._settings, self._enough = scenario, settings, enough
        self._stack, self._stopped = stack, False
        self._seen, self._measured, self._told = Seen(), list[Measured](), list[Told]()

    def run(self) -> Live:
        scenario, settings, stack = self._scenario, self._settings, self._stack
        check_feasible(scenario)
        population = Population(scenario.fleet, hours=scenario.run.hours, seed=scenario.run.seed)
        interactions = load_interactions(scenario.data)
        self._split = split_latest(interactions)
        devices = list(map(device_name, range(self._split.user_count)))
        own = Access(passwords={name: secrets.token_urlsafe(12) for name in (USER, *devices)})
        settings.access.check(devices if settings.aggregator else [USER, *devices])
        self._broker = stack.enter_context(
            start_broker(settings.broker, settings.out / "broker", own.passwords)
        )
        self._access = own if self._broker.kind == "mosquitto" else settings.access
        self._bundle, _ = build_task(scenario.model, interactions, settings.out / "bundle")
        self._aggregator = self._start_aggregator()
        self._said = left_out(
            scenario,
            own_broker=self._broker.kind == "mosquitto",
            own_aggregator=self._aggregator is not None,
        )
        self._announce()
        self._natures = [population.nature(number) for number in range(self._split.user_count)]
        self._assessor = Assessor(
            self._bundle,
            self._split,
            replay_of(scenario, self._split),
            self._private,
            examined(scenario.run, self._split.user_count),
        )
        shares = self._open()
        self._pace = Pace(settings.speed_up, shares.begin())
        troubles = Troubles(
            scenario.faults,
            self._aggregator,
            self._broker,
            self._pace,
            np.random.default_rng([scenario.run.seed, STREAM, scenario.faults.seed]),
            stopped=lambda: self._stopped,
        )
        # In the middle of a question to a process, its answer would be taken for the next one's.
        with interrupting(self._interrupt):
            print(f"training {self._split.user_count:,} devices", flush=True)
            self._train(shares, troubles)
            wall_s = time.time() - self._pace.began_at
            self._drain(shares)
            self._told = shares.finish()
        federated = self._measure(self._told)
        return Live(
            outcome=self._outcome(federated, troubles.happened),
            left_out=self._said,
            unchecked=() if self._aggregator else UNCHECKED,
            connected=self._seen.connected,
            took_part=self._seen.sum("took_part"),
            stopped=self._stopped,
            wall_s=wall_s,
            memory_bytes=self._seen.sum("memory_bytes"),
            cpu_s=self._seen.sum("cpu_s"),
            errors=self._seen.sum("errors"),
        )

    def _interrupt(self) -> None:
        if self._stopped:
            raise KeyboardInterrupt
        self._stopped = True

    # Before

    def _start_aggregator(self) -> AggregatorProcess | None:
        scenario, settings, access = self._scenario, self._settings, self._access
        if settings.aggregator is not None:
            url, tls = settings.aggregator.rstrip("/"), tls_context(access.tls)
            self._client = AggregatorClient(url, tls=tls)
            _check_task(self._client, self._bundle)
            return None
        started = self._stack.enter_context(
            AggregatorProcess(
                settings.out / "aggregator",
                broker=self._broker.url,
                bundle=self._bundle.root,
                password=access.passwords.get(USER),
                settings={
                    **_service_settings(scenario),
                    **{f"tls.{name}": file.resolve() for name, file in _given(access.tls)},
                },
            )
        )
        self._client = started.client
        return started

    def _announce(self) -> None:
        settings, run = self._settings, self._scenario.run
        wall_s = 3600.0 * run.hours / settings.speed_up
        print(f"broker: {self._broker.describe()}")
        print(f"aggregator: {self._client.url}/dashboard")
        print(f"{run.hours:g} hours at {settings.speed_up:g} times the speed: {wall_s:,.0f} s")
        for sentence in self._said:
            print(f"not done: {sentence}")
        sys.stdout.flush()

    def _open(self) -> Shares:
        settings, devices = self._settings, self._split.user_count
        plans = [
            Plan(
                numbers=range(index, devices, settings.processes),
                scenario=self._scenario,
                speed_up=settings.speed_up,
                bundle=self._bundle.root,
                split=self._split,
                folder=settings.out / "devices",
                downloads=settings.out / f"models-{index}",
                log=settings.out / f"agents-{index}.log",
                broker=self._broker.url,
                aggregator=self._client.url,
                access=self._access,
            )
            for index in range(min(settings.processes, devices))
        ]
        with _bar(devices, "device", "opening") as bar:
            shares = Shares(plans, opened=lambda count: bar.update(count - bar.n))
        return self._stack.enter_context(shares)

    # Meanwhile

    def _train(self, shares: Shares, troubles: Troubles) -> None:
        run = self._scenario.run
        every_h = run.evaluate_every_h
        evaluate_at_h = 0.0 if every_h else np.inf
        with _bar(100, "%", self._scenario.name) as bar:
            while not self._stopped and (now_h := self._pace.now_s() / 3600.0) < run.hours:
                self._seen.see(shares.count())
                bar.update(round(100.0 * now_h / run.hours) - bar.n)
                bar.set_postfix_str(self._line())
                if self._enough(self._seen):
                    break
                if now_h >= evaluate_at_h:
                    self._measure(shares.tell())
                    evaluate_at_h = (now_h // every_h + 1.0) * every_h
                troubles.strike(self._seen.sum("answered"))
                left_s = self._pace.wall_s(3600.0 * run.hours - self._pace.now_s())
                time.sleep(min(TICK_S, max(0.0, left_s)))

    def _line(self) -> str:
        seen = self._seen
        return (
            f"{seen.sum('connected'):,} connected, {seen.sum('updates'):,} updates, "
            f"{seen.sum('answered'):,} answered"
        )

    def _drain(self, shares: Shares) -> None:
        """Nothing fails from now on, and nobody trains: until all updates are answered."""
        if self._stopped:
            print("\nstopped: delivering what waits, then reporting what was done", flush=True)
        self._seen.see(shares.rest())
        waiting = self._seen.sum("unsettled")
        deadline = time.monotonic() + DRAIN_S
        with _bar(waiting, "update", "delivering") as bar:
            while self._seen.sum("unsettled") and time.monotonic() < deadline:
                time.sleep(TICK_S)
                self._seen.see(shares.count())
                bar.update(max(0, waiting - self._seen.sum("unsettled") - bar.n))

    def _private(self, user: int) -> Mapping[str, FloatArray]:
        told = self._told[user % len(self._told)] if self._told else None
        return told.private.get(user, {}) if told else {}

    def _measure(self, told: list[Told]) -> Mapping[str, FloatArray]:
        """Evaluate the newest version; returns its parameters."""
        self._told = told
        version, federated = newest_version(self._client, self._bundle, self._settings.out)
        self._measured.append(
            self._assessor.measure(
                federated,
                now_s=self._pace.now_s(),
                version=version,
                updates=sum(sum(one.updates.values()) for one in told),
                meter=_meter(told),
            )
        )
        return federated

    # Afterwards

    def _outcome(self, federated: Mapping[str, FloatArray], happened: Counter[str]) -> Outcome:
        told, bundle = self._told, self._bundle
        updates = Counter[int]()
        for one in told:
            updates.update(one.updates)
            happened.update(one.faults)
        summary = self._client.get(f"/v1/tasks/{bundle.task}/summary")
        audit, digest = self._audit(updates.total(), int(summary["updates"]["accepted"]))
        return Outcome(
            scenario=self._scenario.name,
            seed=self._scenario.run.seed,
            devices=self._split.user_count,
            quality=tuple(self._measured),
            groups=groups(
                self._natures,
                self._split.train.lengths,
                updates,
                self._assessor.rank(federated, self._pace.now_s()),
            ),
            exposure=None,
            staleness={int(age): int(count) for age, count in summary["staleness"]},
            refused=summary["refusals"],
            faults={kind: count for kind, count in sorted(happened.items()) if count},
            audit=audit,
            model=digest,
        )

    def _audit(self, created: int, accepted: int) -> tuple[Audit, str]:
        """What the ledger says, where there is one to look into, and the model's digest."""
        told = self._told
        waiting, leaks = sum(one.waiting for one in told), sum(one.leaks for one in told)
        mass = sum(one.mass for one in told)
        if self._aggregator is None:
            unknown = dict.fromkeys(UNCHECKED, 0)
            return Audit(
                created=created,
                accepted=accepted,
                unanswered=waiting,
                leaks=leaks,
                mass=mass,
                **unknown,
            ), ""
        self._aggregator.stop()
        folder = self._settings.out / "aggregator"
        database = open_database(f"sqlite:///{folder / 'ledger.db'}")
        try:
            ledger = Ledger(database)
            audit = Audit.of(
                ledger,
                FolderBlobs(folder / "blobs"),
                self._bundle,
                created=created,
                accepted=_accepted(self._bundle.task, told),
                unanswered=waiting,
                leaks=leaks,
                mass=mass,
            )
            return audit, ledger.newest_version(self._bundle.task).digest
        finally:
            database.dispose()


def _check_task(client: AggregatorClient, bundle: Bundle) -> None:
    try:
        client.get(f"/v1/tasks/{bundle.task}")
    except OSError as error:
        raise ScenarioError(
            f"the aggregator at {client.url} does not serve this scenario's task {bundle.task}: "
            f"{error}; start it with `--bundle {bundle.root}`"
        ) from None


def _given(files: TlsFiles) -> list[tuple[str, Path]]:
    return [(name, file) for name, file in asdict(files).items() if file is not None]


def _service_settings(scenario: Scenario) -> dict[str, Any]:
    """What the scenario says of the aggregator, by the aggregator's own keys."""
    service = scenario.service
    kept = ("snapshot_every", "keep_snapshots", "keep_every", "keep_publications")
    return {
        "announce_interval_s": service.announce_interval_s,
        **{f"retention.{name}": getattr(service, name) for name in kept},
        **{f"rule.{name}": value for name, value in scenario.rule.to_dict().items()},
        **{f"admission.{name}": value for name, value in asdict(scenario.admission).items()},
    }


def _meter(told: Sequence[Told]) -> Meter:
    meter = Meter()
    for one in told:
        meter.bytes_up += one.bytes_up
        meter.bytes_down += one.bytes_down
        meter.energy_j += one.energy_j
    return meter


def _accepted(task: str, told: Sequence[Told]) -> Accepted:
    accepted = Accepted(task)
    for one in told:
        for number, sequence in zip(one.accepted[::2], one.accepted[1::2], strict=True):
            accepted.add(number, sequence)
    return accepted


def _bar(total: int, unit: str, what: str) -> "tqdm[Any]":
    hidden = not sys.stderr.isatty()
    return tqdm(total=total, unit=unit, desc=what, disable=hidden, leave=False)
