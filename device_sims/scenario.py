"""A scenario: everything that decides how a simulated fleet goes, in one TOML file.

``rivulet-fleet simulate --example`` prints one with every key and its default.
"""

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self, TypeVar

import tomli_w

from aggregator.merging import Rule
from device_sims.data_options import DATASETS
from device_sims.model import Model
from device_sims.presets import preset
from wire.checks import Fields
from wire.errors import WireError
from wire.manifest import Optimizer
from wire.policy import CodecPolicy, TrainingPolicy

__all__ = [
    "EXAMPLE",
    "DataChoice",
    "Faults",
    "FleetBehaviour",
    "Run",
    "Scenario",
    "ScenarioError",
    "read_scenario",
    "to_toml",
]

MAX_S = 1e9


class ScenarioError(WireError):
    """A scenario is refused; the message names the key, the value and what was expected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataChoice:
    """Which interactions the devices have.

    Attributes:
        dataset: ``synthetic``, ``movielens``, ``frappe``, ``smartthings`` or ``csv``.
        files: its files; none for ``synthetic``.
        users: so many users, drawn at random, one a device; 0 for all (synthetic: 200).
        options: of the loader, as `rivulet-fleet demo --help` names them, with underscores.
    """

    dataset: str = "synthetic"
    files: tuple[Path, ...] = ()
    users: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetBehaviour:
    """What devices are like. Each draws its own values once, from its own generator.

    Attributes:
        update_s: median seconds that a local update takes, above 0.
        update_sigma: standard deviation of that time's logarithm over devices, 0 to 5.
        online_s: mean length of a stretch in which a device has a connection; exponential.
        offline_s: mean length of the stretch between two of them; 0 for always online.
        latency_s: mean one-way delay of a message; exponential.
        up_bytes_s: bytes a second to the broker, above 0.
        down_bytes_s: bytes a second from the aggregator, above 0.
        clock_skew_s: a device's clock is off by up to so much, either way.
    """

    update_s: float = 5.0
    update_sigma: float = 0.8
    online_s: float = 3_600.0
    offline_s: float = 600.0
    latency_s: float = 0.1
    up_bytes_s: float = 1e5
    down_bytes_s: float = 1e6
    clock_skew_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """How often something goes wrong: probabilities, 0 to 1.

    Attributes:
        lost: of a message, on the way to the broker or from it.
        duplicated: of a message to the aggregator, to arrive a second time.
        delayed: of a message, to take ``delay_s`` longer on average, so that others overtake it.
        delay_s: mean of that; exponential.
        corrupted: of a message to the aggregator, to have a bit flipped.
        agent_crash: of an agent, at each write to its storage: before it or after it.
        aggregator_crash: of the aggregator, at each write to its ledger and blobs, likewise.
        restart_s: seconds until what crashed is started again.
        backup: of an agent that crashed, to come back with the storage of its last start.
    """

    lost: float = 0.0
    duplicated: float = 0.0
    delayed: float = 0.0
    delay_s: float = 60.0
    corrupted: float = 0.0
    agent_crash: float = 0.0
    aggregator_crash: float = 0.0
    restart_s: float = 5.0
    backup: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """How long, and what is measured.

    Attributes:
        hours: virtual time in which devices train; what waits then is delivered without faults.
        evaluate_every_h: virtual hours from one evaluation to the next; 0 for the end only.
        seed: of everything that is drawn.
    """

    hours: float = 2.0
    evaluate_every_h: float = 0.5
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """All of it.

    Attributes:
        name: what people call it.
        model: what is trained, and how devices train and encode.
        data: which interactions the devices have.
        fleet: what devices are like.
        faults: how often something goes wrong.
        rule: how updates are merged.
        run: how long.
    """

    name: str
    model: Model
    data: DataChoice = field(default_factory=DataChoice)
    fleet: FleetBehaviour = field(default_factory=FleetBehaviour)
    faults: Faults = field(default_factory=Faults)
    rule: Rule = field(default_factory=Rule)
    run: Run = field(default_factory=Run)

    @classmethod
    def from_dict(cls, document: Mapping[str, Any], *, name: str) -> Self:
        """From decoded TOML; what is left out takes its default.

        Raises:
            ScenarioError: names the key, the value and what was expected.
        """
        tables = {"task", "data", "fleet", "faults", "aggregation", "run"}
        for key, value in document.items():
            if key != "name" and key not in tables:
                raise ScenarioError(f"unknown key {key!r}{_nearest(key, tables | {'name'})}")
            if key != "name" and not isinstance(value, Mapping):
                raise ScenarioError(f"{key} is {value!r:.80}; expected a table, [{key}]")
        data = _data(document.get("data", {}))
        return cls(
            name=str(document.get("name", name)),
            model=_model(document.get("task", {}), data.dataset),
            data=data,
            fleet=_fleet(_table(document, "fleet", FleetBehaviour)),
            faults=_faults(_table(document, "faults", Faults)),
            rule=Rule.from_dict(document.get("aggregation", {})),
            run=_run(_table(document, "run", Run)),
        )

    def with_seed(self, seed: int) -> Self:
        """The same scenario, drawn anew."""
        return replace(self, run=replace(self.run, seed=seed))


def read_scenario(path: Path) -> Scenario:
    """Read a scenario from a TOML file.

    Raises:
        ScenarioError: the file cannot be read, or a value is refused.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ScenarioError(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise ScenarioError(f"{path} is not TOML: {error}") from None
    try:
        return Scenario.from_dict(document, name=path.stem)
    except WireError as error:
        raise ScenarioError(f"{path}: {error}") from None


def to_toml(scenario: Scenario) -> str:
    """A scenario as the file that it can be read from."""
    model, data = scenario.model, scenario.data
    return tomli_w.dumps(
        {
            "name": scenario.name,
            "task": {
                "recommender": model.recommender,
                "optimizer": model.optimizer.value,
                "options": dict(model.options),
                "training": model.training.to_dict(),
                "codec": model.codec.to_dict(),
            },
            "data": {**asdict(data), "files": [str(file) for file in data.files]},
            "fleet": asdict(scenario.fleet),
            "faults": asdict(scenario.faults),
            "aggregation": scenario.rule.to_dict(),
            "run": asdict(scenario.run),
        }
    )


T = TypeVar("T", FleetBehaviour, Faults, Run)


def _table(document: Mapping[str, Any], where: str, kind: type[T]) -> T:
    """A table of numbers, each of the type of its default."""
    given = document.get(where, {})
    defaults = asdict(kind())
    for key, value in given.items():
        if key not in defaults:
            raise ScenarioError(f"{where} has an unknown key {key!r}{_nearest(key, defaults)}")
        whole = isinstance(defaults[key], int)
        if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
            expected = "a whole number" if whole else "a number"
            raise ScenarioError(f"{where}.{key} is {value!r:.80}; expected {expected}")
    return kind(**{key: type(defaults[key])(value) for key, value in given.items()})


def _fleet(fleet: FleetBehaviour) -> FleetBehaviour:
    checks = _checks(fleet, "fleet")
    for name in ("update_s", "online_s", "up_bytes_s", "down_bytes_s"):
        _above_zero(checks, name, MAX_S)
    checks.number("update_sigma", 0.0, 5.0)
    for name in ("offline_s", "latency_s", "clock_skew_s"):
        checks.number(name, 0.0, MAX_S)
    return fleet


def _faults(faults: Faults) -> Faults:
    checks = _checks(faults, "faults")
    for name in ("delay_s", "restart_s"):
        checks.number(name, 0.0, MAX_S)
    for name in ("lost", "duplicated", "delayed", "corrupted", "backup"):
        checks.number(name, 0.0, 1.0)
    # At certain death nothing would ever be written.
    for name in ("agent_crash", "aggregator_crash"):
        checks.number(name, 0.0, 0.2)
    return faults


def _run(run: Run) -> Run:
    checks = _checks(run, "run")
    _above_zero(checks, "hours", 1e6)
    checks.number("evaluate_every_h", 0.0, 1e6)
    checks.integer("seed", 0, 2**63 - 1)
    return run


def _data(given: Mapping[str, Any]) -> DataChoice:
    for key in given:
        if key not in DataChoice.__dataclass_fields__:
            known = DataChoice.__dataclass_fields__
            raise ScenarioError(f"data has an unknown key {key!r}{_nearest(key, known)}")
    checks = Fields(
        {"dataset": "synthetic", "files": [], "users": 0, "options": {}, **given},
        where="data",
        error=ScenarioError,
    )
    files = checks.array("files", 16)
    for file in files:
        if not isinstance(file, str):
            raise ScenarioError(f"data.files has {file!r:.80}; expected paths")
    return DataChoice(
        dataset=checks.choice("dataset", tuple(DATASETS)),
        files=tuple(Path(file) for file in files),
        users=checks.integer("users", 0, 10_000_000),
        options=_loader_options(checks.take("options")),
    )


def _loader_options(given: object) -> Mapping[str, Any]:
    known = dict.fromkeys(option for taken in DATASETS.values() for option in taken)
    if not isinstance(given, Mapping):
        raise ScenarioError(f"data.options is {given!r:.80}; expected a table")
    for key in given:
        if key not in known:
            raise ScenarioError(f"data.options has an unknown key {key!r}{_nearest(key, known)}")
    return {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}


def _model(given: Mapping[str, Any], dataset: str) -> Model:
    keys = ("recommender", "options", "optimizer", "training", "codec")
    for key in given:
        if key not in keys:
            raise ScenarioError(f"task has an unknown key {key!r}{_nearest(key, keys)}")
    recommender = str(given.get("recommender", "mf"))
    start = preset(recommender, dataset)
    names = ("learning_rate", "epochs", "batch_size")
    training = {**{name: start[name] for name in names}, **given.get("training", {})}
    optimizer = Fields(
        {"optimizer": str(given.get("optimizer", start["optimizer"]))},
        where="task",
        error=ScenarioError,
    )
    return Model(
        recommender=recommender,
        options={**start["options"], **given.get("options", {})},
        optimizer=Optimizer(optimizer.choice("optimizer", tuple(Optimizer))),
        training=TrainingPolicy.from_dict(training),
        codec=CodecPolicy.from_dict(given.get("codec", {})),
    )


def _checks(values: FleetBehaviour | Faults | Run, where: str) -> Fields:
    named = {name: getattr(values, name) for name in values.__dataclass_fields__}
    return Fields(named, where=where, error=ScenarioError)


def _above_zero(checks: Fields, name: str, most: float) -> None:
    if (value := checks.number(name, 0.0, most)) <= 0.0:
        raise checks.refusal(name, value, f"a number above 0 and at most {most:g}")


def _nearest(name: object, known: Any) -> str:
    close = difflib.get_close_matches(str(name), list(known), n=1)
    return f"; did you mean {close[0]}?" if close else f"; it takes {', '.join(sorted(known))}"


EXAMPLE = to_toml(Scenario.from_dict({}, name="example"))
