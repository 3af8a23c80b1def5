"""One compilation for several commands in a test, as one workshop has for several runs."""

from pathlib import Path

import pytest

from device_sims.datasets import Interactions, Split
from device_sims.scenario import Scenario
from device_sims.simulation import workshop
from device_sims.simulation.workshop import Prepared

__all__ = ["made_once"]


def made_once(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Until the test ends, keep what is compiled for a model and data.

    Args:
        monkeypatch: of the test.
        folder: for the bundles; it need not be there.
    """
    made, make = dict[str, Prepared](), workshop._make
    folder.mkdir()

    def once(
        scenario: Scenario, interactions: Interactions, split: Split, _folder: Path
    ) -> Prepared:
        key = repr((scenario.model, scenario.data.source))
        if key not in made:
            made[key] = make(scenario, interactions, split, folder / str(len(made)))
        return made[key]

    monkeypatch.setattr(workshop, "_make", once)
