"""From a scenario to what a simulation needs: the data, the bundle, a folder."""

import shutil
from collections.abc import Callable
from pathlib import Path

from device_sims.datasets import Interactions, Split, split_latest
from device_sims.model import make_recommender
from device_sims.nature import read_trace
from device_sims.scenario import DataChoice, Scenario, load_interactions
from device_sims.simulation.outcome import Outcome
from device_sims.simulation.run import simulate
from wire.bundle import Bundle

__all__ = ["Workshop"]


class Workshop:
    """Runs scenarios one after the other; what two of them share is made once.

    Args:
        folder: for bundles and runs; nothing may be there.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._loaded: dict[str, tuple[Interactions, Split]] = {}
        self._made: dict[str, tuple[Bundle, Split]] = {}

    def load(self, data: DataChoice) -> tuple[Interactions, Split]:
        """The data of a scenario, whole and divided.

        Raises:
            DatasetError: the data cannot be loaded.
            ValueError: an option of the data does not go with the data set.
        """
        key = repr(data)
        if key not in self._loaded:
            interactions = load_interactions(data)
            self._loaded[key] = (interactions, split_latest(interactions))
        return self._loaded[key]

    def prepare(self, scenario: Scenario) -> tuple[Bundle, Split]:
        """The bundle and the data of a scenario.

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
            self._made[key] = self._make(scenario, self._folder / f"bundle-{len(self._made)}")
        return self._made[key]

    def run(
        self,
        scenario: Scenario,
        *,
        progress: Callable[[float, int], object] = lambda _share, _updates: None,
    ) -> Outcome:
        """Run a scenario; its ledger, blobs and devices go with the next one's start."""
        bundle, split = self.prepare(scenario)
        run = self._folder / "run"
        shutil.rmtree(run, ignore_errors=True)
        run.mkdir(parents=True)
        return simulate(scenario, bundle, split, run, progress=progress)

    def _make(self, scenario: Scenario, folder: Path) -> tuple[Bundle, Split]:
        # Only here: PyTorch takes seconds to import, and an error in the scenario should not.
        from export import build_bundle

        model = scenario.model
        interactions, split = self.load(scenario.data)
        bundle = build_bundle(
            make_recommender(model, interactions, seed=0),
            out=folder,
            optimizer=model.optimizer,
            training=model.training,
            codec=model.codec,
        )
        return bundle, split
