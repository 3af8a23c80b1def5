"""A scenario: everything that decides how a simulated fleet goes, in one TOML file."""

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import tomli_w

from aggregator.admission import AdmissionPolicy
from aggregator.merging import Rule
from aggregator.settings import SettingsError, read_admission
from device_sims.model import Model
from device_sims.scenario.attackers import Attackers, read_attackers
from device_sims.scenario.data import DataChoice, read_data
from device_sims.scenario.errors import ScenarioError
from device_sims.scenario.faults import Faults, read_faults
from device_sims.scenario.fleet import FleetBehaviour, read_fleet
from device_sims.scenario.run import Run, read_run
from device_sims.scenario.selection import Selection, read_selection
from device_sims.scenario.service import Service, read_service
from device_sims.scenario.table import nearest, plain
from device_sims.scenario.task import read_task, task_table
from wire.errors import WireError

__all__ = ["TABLES", "Scenario", "example", "overlay", "read_document", "read_scenario", "to_toml"]

TABLES = (
    "task",
    "data",
    "fleet",
    "faults",
    "attackers",
    "selection",
    "aggregation",
    "admission",
    "service",
    "run",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """All of it.

    Attributes:
        name: what people call it.
        model: what is trained, and how devices train and encode.
        data: which interactions the devices have, and when.
        fleet: what devices are like.
        faults: how often something goes wrong.
        attackers: devices that are hostile.
        selection: which devices train when.
        rule: how updates are merged.
        admission: what an update must keep to.
        service: how the aggregator works.
        run: how long.
    """

    name: str
    model: Model
    data: DataChoice = field(default_factory=DataChoice)
    fleet: FleetBehaviour = field(default_factory=FleetBehaviour)
    faults: Faults = field(default_factory=Faults)
    attackers: Attackers = field(default_factory=Attackers)
    selection: Selection = field(default_factory=Selection)
    rule: Rule = field(default_factory=Rule)
    admission: AdmissionPolicy = field(default_factory=AdmissionPolicy)
    service: Service = field(default_factory=Service)
    run: Run = field(default_factory=Run)

    @classmethod
    def from_dict(cls, document: Mapping[str, Any], *, name: str) -> Self:
        """From decoded TOML; what is left out takes its default.

        Raises:
            WireError: names the key, the value and what was expected.
        """
        for key, value in document.items():
            if key not in (*TABLES, "name"):
                raise ScenarioError(f"unknown key {key!r}{nearest(key, (*TABLES, 'name'))}")
            if key != "name" and not isinstance(value, Mapping):
                raise ScenarioError(f"{key} is {value!r:.80}; expected a table, [{key}]")
        tables = {key: document.get(key, {}) for key in TABLES}
        data, service = read_data(tables["data"]), read_service(tables["service"])
        return cls(
            name=str(document.get("name", name)),
            model=read_task(tables["task"], data.dataset),
            data=data,
            fleet=read_fleet(tables["fleet"]),
            faults=read_faults(tables["faults"]),
            attackers=read_attackers(tables["attackers"]),
            selection=read_selection(
                tables["selection"], keep_publications=service.keep_publications
            ),
            rule=Rule.from_dict(tables["aggregation"]),
            admission=_admission(tables["admission"]),
            service=service,
            run=read_run(tables["run"]),
        )

    def with_seed(self, seed: int) -> Self:
        """The same scenario, drawn anew."""
        return replace(self, run=replace(self.run, seed=seed))


def read_scenario(path: Path) -> Scenario:
    """Read a scenario from a TOML file.

    What the file leaves out is taken from the one that it names as ``like``, by a path from its own
    folder, and only then is a default.

    Raises:
        ScenarioError: a file cannot be read, or a value is refused.
    """
    document = read_document(path)
    if "grid" in document:
        raise ScenarioError(f"{path} has a grid of many scenarios: `rivulet-fleet compare` runs it")
    try:
        return Scenario.from_dict(document, name=path.stem)
    except WireError as error:
        raise ScenarioError(f"{path}: {error}") from None


def read_document(path: Path) -> dict[str, Any]:
    """What a scenario's file says, together with what it is like; nothing is checked.

    Raises:
        ScenarioError: a file cannot be read.
    """
    return _read_document(path, ())


def overlay(first: Mapping[str, Any], then: Mapping[str, Any]) -> dict[str, Any]:
    """Tables of the second over those of the first, key by key."""
    merged = {**first, **then}
    for key in first.keys() & then.keys():
        if isinstance(first[key], Mapping) and isinstance(then[key], Mapping):
            merged[key] = overlay(first[key], then[key])
    return merged


def _read_document(path: Path, below: tuple[Path, ...]) -> dict[str, Any]:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ScenarioError(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise ScenarioError(f"{path} is not TOML: {error}") from None
    if (like := document.pop("like", None)) is None:
        return document
    if not isinstance(like, str):
        raise ScenarioError(f"{path}: like is {like!r:.80}; expected the path of a scenario")
    other = (path.parent / like).resolve()
    if other in (*below, path.resolve()):
        raise ScenarioError(f"{path}: like is {like!r:.80}, which in the end is like this one")
    first = _read_document(other, (*below, path.resolve()))
    first.pop("name", None)
    return overlay(first, document)


def to_toml(scenario: Scenario) -> str:
    """A scenario as the file that it can be read from."""
    return tomli_w.dumps(
        {
            "name": scenario.name,
            "task": task_table(scenario.model),
            "data": plain(scenario.data),
            "fleet": plain(scenario.fleet),
            "faults": plain(scenario.faults),
            "attackers": plain(scenario.attackers),
            "selection": plain(scenario.selection),
            "aggregation": scenario.rule.to_dict(),
            "admission": asdict(scenario.admission),
            "service": plain(scenario.service),
            "run": plain(scenario.run),
        }
    )


def example() -> str:
    """A scenario with every key and its default, as a file."""
    return to_toml(Scenario.from_dict({}, name="example"))


def _admission(given: Mapping[str, Any]) -> AdmissionPolicy:
    try:
        return read_admission(given)
    except SettingsError as error:
        raise ScenarioError(str(error)) from None
