"""From a scenario to what a simulation needs: the data, the bundle, the programs, a folder."""

import logging
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from device_sims.datasets import Interactions, Split, split_latest
from device_sims.model import Model, make_recommender
from device_sims.nature import read_trace
from device_sims.scenario import DataChoice, Scenario, load_interactions
from device_sims.simulation.outcome import Outcome
from device_sims.simulation.pools import open_pool
from device_sims.simulation.run import simulate
from device_sims.simulation.training import BatchTrainer, Kit, Pool
from wire.bundle import Bundle

if TYPE_CHECKING:
    from export.recommender import Recommender

__all__ = ["Prepared", "Workshop", "build_task"]

logger = logging.getLogger(__name__)

DEVICES = 8
"""That are trained in one call: with more of them their tables leave the processor's cache."""
ALIGNMENT = 16
"""Samples of a step are filled up to a multiple, so that no device's numbers are at the end of a
vector instruction's, where some functions are computed in another way."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """What can be made of a scenario before it runs.

    Attributes:
        bundle: the task.
        split: the data.
        kit: for those that train.
    """

    bundle: Bundle
    split: Split
    kit: Kit


class Workshop:
    """Runs scenarios one after the other; what two of them share is made once.

    Args:
        folder: for bundles and runs; nothing may be there.
        pool: opens what does the work of local updates, see ``open_pool``.
    """

    def __init__(
        self, folder: Path, *, pool: Callable[[Kit], AbstractContextManager[Pool]] = open_pool
    ) -> None:
        self._folder, self._pool = folder, pool
        self._loaded: dict[str, tuple[Interactions, Split]] = {}
        self._made: dict[str, Prepared] = {}

    def load(self, data: DataChoice) -> tuple[Interactions, Split]:
        """The data of a scenario, whole and divided.

        Raises:
            DatasetError: the data cannot be loaded.
            ValueError: an option of the data does not go with the data set.
        """
        key = repr(data.source)
        if key not in self._loaded:
            interactions = load_interactions(data)
            self._loaded[key] = (interactions, split_latest(interactions))
        return self._loaded[key]

    def prepare(self, scenario: Scenario) -> Prepared:
        """The bundle, the data and the programs of a scenario.

        Raises:
            DatasetError: the data or a trace cannot be loaded.
            ExportError: the recommender cannot be exported.
            RecommenderError: it refuses its options, or does not fit the data.
            ScenarioError: there are fewer users than devices.
            ValueError: an option of the data does not go with the data set.
        """
        if scenario.fleet.is_traced:
            read_trace(scenario.fleet.trace)
        key = repr((scenario.model, scenario.data.source))
        if key not in self._made:
            loaded = self.load(scenario.data)
            self._made[key] = _make(scenario, *loaded, self._folder / f"bundle-{len(self._made)}")
        return self._made[key]

    def run(
        self,
        scenario: Scenario,
        *,
        progress: Callable[[float, int], object] = lambda _share, _updates: None,
    ) -> Outcome:
        """Run a scenario; its ledger, blobs and devices go with the next one's start."""
        made = self.prepare(scenario)
        run = self._folder / "run"
        shutil.rmtree(run, ignore_errors=True)
        run.mkdir(parents=True)
        with self._pool(made.kit) as pool:
            return simulate(
                scenario,
                made.bundle,
                made.split,
                run,
                trainer=BatchTrainer(pool),
                progress=progress,
            )


def build_task(
    model: Model, interactions: Interactions, folder: Path
) -> tuple[Bundle, "Recommender"]:
    """Export a task.

    Args:
        model: what is trained.
        interactions: it is made to fit them.
        folder: for the bundle.

    Raises:
        ExportError: the recommender cannot be exported.
        RecommenderError: it refuses its options, or does not fit the data.
    """
    # Only here: PyTorch takes seconds to import, and an error in the scenario should not.
    from export import build_bundle

    recommender = make_recommender(model, interactions, seed=0)
    bundle = build_bundle(
        recommender,
        out=folder,
        optimizer=model.optimizer,
        training=model.training,
        codec=model.codec,
    )
    return bundle, recommender


def _make(scenario: Scenario, interactions: Interactions, split: Split, folder: Path) -> Prepared:
    bundle, recommender = build_task(scenario.model, interactions, folder)
    program = _fleet_program(recommender, scenario.model)
    return Prepared(bundle, split, Kit(bundle.raw_manifest, _update_program(bundle), program))


def _update_program(bundle: Bundle) -> bytes:
    return bundle.path(bundle.manifest.program("onnx")["update"]).read_bytes()


def _fleet_program(recommender: "Recommender", model: Model) -> bytes | None:
    """The program for many devices at once; None where PyTorch cannot spread the loss over them."""
    from export.errors import RecommenderError
    from export.onnx_graph import to_bytes
    from export.step import Extent
    from export.training_graph import training_program

    samples = -(-model.training.batch_size // ALIGNMENT) * ALIGNMENT
    try:
        program = training_program(recommender, model.optimizer, Extent(DEVICES, samples))
    except RecommenderError as error:
        logger.warning("no program for many devices at once, so they train one by one: %s", error)
        return None
    return to_bytes(program)
