"""One run as work that can be done anywhere: it brings its task and its data along."""

import hashlib
import json
import pickle
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from device_sims.datasets import Split
from device_sims.scenario import Scenario, to_toml
from wire.bundle import MANIFEST_FILE, Bundle, read_bundle

if TYPE_CHECKING:
    from device_sims.simulation.training import Kit

__all__ = [
    "CentralisedWork",
    "Packed",
    "Progress",
    "SimulationWork",
    "Work",
    "code_digest",
    "pack",
    "reference_digest",
    "scenario_digest",
    "settings_of",
]

PACKAGES = ("wire", "edge_agent", "aggregator", "export", "device_sims")
SHOWS_ONLY = Path(__file__).parent
Progress = Callable[[float], object]
"""Is told which share of a run is done, 0 to 1."""


class Work(Protocol):
    """Something to be done in a process of its own, perhaps on another machine; can be pickled.

    Attributes:
        key: names it and its result.
        title: what a person reads while it is done.
    """

    @property
    def key(self) -> str:
        """See above."""
        ...

    @property
    def title(self) -> str:
        """See above."""
        ...

    def __call__(self, folder: Path, progress: Progress) -> dict[str, Any]:
        """Do it; gives a JSON-ready map.

        Args:
            folder: empty, and gone afterwards.
            progress: told now and then.
        """
        ...


@dataclass(frozen=True, slots=True)
class Packed:
    """A bundle and its data, as bytes.

    Attributes:
        files: of the bundle, by their path in it.
        split: the data, pickled.
    """

    files: Mapping[str, bytes]
    split: bytes

    def unpack(self, folder: Path) -> tuple[Bundle, Split]:
        """Write the bundle into a folder, which is made, and read both."""
        for path, content in self.files.items():
            place = folder / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
        split = pickle.loads(self.split)
        return read_bundle(folder), split


def pack(bundle: Bundle, split: Split) -> Packed:
    """Take a bundle and its data along."""
    paths = (MANIFEST_FILE, *(entry.path for entry in bundle.manifest.files))
    files = {path: (bundle.root / path).read_bytes() for path in paths}
    return Packed(files, pickle.dumps(split))


@dataclass(frozen=True, slots=True)
class SimulationWork:
    """One simulation.

    Attributes:
        key: names it.
        scenario: with its seed.
        packed: what it needs.
        kit: for training.
    """

    key: str
    scenario: Scenario
    packed: Packed
    kit: "Kit"

    @property
    def title(self) -> str:
        """Scenario and seed."""
        return f"{self.scenario.name}, seed {self.scenario.run.seed}"

    def __call__(self, folder: Path, progress: Progress) -> dict[str, Any]:
        """Simulate; see ``Work``."""
        # Only here: a process that looks after others does without the whole production code.
        from device_sims.simulation.pools import LocalPool
        from device_sims.simulation.run import simulate
        from device_sims.simulation.training import BatchTrainer

        bundle, split = self.packed.unpack(folder / "bundle")
        run = folder / "run"
        run.mkdir()
        outcome = simulate(
            self.scenario,
            bundle,
            split,
            run,
            trainer=BatchTrainer(LocalPool(self.kit)),
            progress=lambda share, _updates: progress(share),
        )
        return outcome.to_dict()


@dataclass(frozen=True, slots=True)
class CentralisedWork:
    """The recommender of a scenario, trained on all of its data in one place.

    Attributes:
        key: names it.
        scenario: with its seed.
        packed: the task.
        recommender: the model with its initial parameters, pickled.
    """

    key: str
    scenario: Scenario
    packed: Packed
    recommender: bytes

    @property
    def title(self) -> str:
        """What and seed."""
        return f"centralised {self.scenario.model.recommender}, seed {self.scenario.run.seed}"

    def __call__(self, folder: Path, progress: Progress) -> dict[str, Any]:
        """Train; see ``Work``."""
        # Only here: a process that simulates does without PyTorch.
        from device_sims.centralised import MOST_EPOCHS, train_centralised

        bundle, split = self.packed.unpack(folder / "bundle")
        found = train_centralised(
            pickle.loads(self.recommender),
            bundle,
            split,
            seed=self.scenario.run.seed,
            progress=lambda epoch: progress(epoch / MOST_EPOCHS),
        )
        return {"epoch": found.epoch, "quality": found.quality.to_dict()}


def settings_of(scenario: Scenario) -> dict[str, Any]:
    """Everything that decides a scenario, by table and key."""
    return tomllib.loads(to_toml(scenario))


def scenario_digest(scenario: Scenario) -> str:
    """16 hex characters that stand for everything that decides a run, but for its seed.

    What it is called plays no part, and of data files what is in them, not where they lie.

    Raises:
        OSError: a data file cannot be read.
    """
    settings = settings_of(replace(scenario.with_seed(0), name=""))
    if scenario.fleet.is_traced:
        settings["fleet"]["trace"] = _file_digest(scenario.fleet.trace)
    if not scenario.fleet.agent_versions:
        # Runs that finished before scenarios had this key are still found.
        del settings["fleet"]["agent_versions"]
    return _digest({**settings, "data": _content(scenario)})


def reference_digest(scenario: Scenario) -> str:
    """The same for a recommender that is trained in one place: only model and data decide it.

    Raises:
        OSError: a data file cannot be read.
    """
    task = settings_of(scenario)["task"]
    training = {key: task["training"][key] for key in ("learning_rate", "negatives")}
    model = {key: task[key] for key in ("recommender", "options", "optimizer")}
    return _digest({**model, **training, "data": _content(scenario)})


def _content(scenario: Scenario) -> dict[str, Any]:
    """Which data, by what is in its files."""
    return {
        **settings_of(scenario)["data"],
        "files": [_file_digest(path) for path in scenario.data.files],
    }


def _digest(document: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:16]


@cache
def code_digest() -> str:
    """16 hex characters that stand for the code that makes a run what it is."""
    root, digest = Path(__file__).parents[2], hashlib.sha256()
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            if SHOWS_ONLY not in path.parents:
                digest.update(f"{path.relative_to(root)}\n".encode())
                digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
