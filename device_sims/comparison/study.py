"""What a comparison consists of: scenarios times seeds, which of it is done, and what is left."""

import pickle
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from device_sims.comparison.records import Records
from device_sims.comparison.summary import Case, Panel
from device_sims.comparison.work import (
    CentralisedWork,
    SimulationWork,
    Work,
    code_digest,
    pack,
    reference_digest,
    scenario_digest,
    settings_of,
)
from device_sims.datasets import Split
from device_sims.model import make_recommender
from device_sims.protocol import evaluate, own_frequency, popularity
from device_sims.scenario import Scenario, ScenarioError
from device_sims.simulation.workshop import Workshop

__all__ = ["Study"]


@dataclass(frozen=True, slots=True)
class _Entry:
    """A scenario, or what trains its recommender in one place, and its name among the records."""

    scenario: Scenario
    digest: str
    centralised: bool = False

    def key(self, seed: int) -> str:
        return f"{self.digest}-{seed}"


class Study:
    """Scenarios with seeds, and the records of those that are finished.

    Args:
        scenarios: at least one; their own seeds play no part.
        seeds: how many, counted from 0.
        centralised: whether each recommender is trained on all data in one place, too.
        records: of finished runs.
        workshop: makes tasks.

    Raises:
        ScenarioError: two scenarios have one name, or are the same.
        DatasetError: the data cannot be loaded.
        OSError: a data file cannot be read.
        ValueError: an option of the data does not go with the data set.
    """

    def __init__(
        self,
        scenarios: Sequence[Scenario],
        *,
        seeds: int,
        centralised: bool,
        records: Records,
        workshop: Workshop,
    ) -> None:
        self._seeds, self._records, self._workshop = range(seeds), records, workshop
        self._runs = [_Entry(scenario, scenario_digest(scenario)) for scenario in scenarios]
        _check_distinct(self._runs)
        self._by_data: dict[str, list[_Entry]] = defaultdict(list)
        for entry in self._runs:
            self._by_data[_data_key(entry.scenario)].append(entry)
            # Before anything starts: what is wrong with the data shall not come up in an hour.
            workshop.load(entry.scenario.data)
        self._references = {
            key: _reference(entries[0].scenario)
            for key, entries in self._by_data.items()
            if centralised
        }

    @property
    def total(self) -> int:
        """Runs, finished or not."""
        return len(self._seeds) * (len(self._runs) + len(self._references))

    @property
    def missing(self) -> int:
        """Runs that are not finished."""
        return sum(1 for _ in self._left())

    def works(self) -> Iterator[Work]:
        """What is left to do, seed by seed; the task of each is made when it is asked for.

        Raises:
            ExportError: a recommender cannot be exported.
            RecommenderError: it refuses its options, or does not fit the data.
        """
        for entry, seed in self._left():
            scenario = entry.scenario.with_seed(seed)
            made = self._workshop.prepare(scenario)
            packed = pack(made.bundle, made.split)
            if entry.centralised:
                interactions, _ = self._workshop.load(scenario.data)
                model = pickle.dumps(make_recommender(scenario.model, interactions, seed=0))
                yield CentralisedWork(entry.key(seed), scenario, packed, model)
            else:
                yield SimulationWork(entry.key(seed), scenario, packed, made.kit)

    def panels(self) -> list[Panel]:
        """Everything that is finished, by data set."""
        return [self._panel(key, entries) for key, entries in self._by_data.items()]

    def _left(self) -> Iterator[tuple[_Entry, int]]:
        for seed in self._seeds:
            for entry in (*self._references.values(), *self._runs):
                if self._records.find(entry.key(seed)) is None:
                    yield entry, seed

    def _found(self, entry: _Entry) -> dict[int, Mapping[str, Any]]:
        found = {seed: self._records.find(entry.key(seed)) for seed in self._seeds}
        return {seed: record for seed, record in found.items() if record is not None}

    def _panel(self, key: str, entries: Sequence[_Entry]) -> Panel:
        data = entries[0].scenario.data
        _, split = self._workshop.load(data)
        reference = self._references.get(key)
        centralised = self._found(reference) if reference else {}
        return Panel(
            name=f"{split.name}, {data.users:,} users" if data.users else split.name,
            facts=_facts(split),
            baselines=_baselines(split),
            centralised={seed: record["result"] for seed, record in centralised.items()},
            cases=[self._case(entry) for entry in entries],
        )

    def _case(self, entry: _Entry) -> Case:
        found = self._found(entry)
        return Case(
            name=entry.scenario.name,
            digest=entry.digest,
            settings=settings_of(entry.scenario),
            outcomes={seed: record["result"] for seed, record in found.items()},
            missing=tuple(seed for seed in self._seeds if seed not in found),
            other_code=tuple(s for s, record in found.items() if record["code"] != code_digest()),
        )


def _check_distinct(entries: Sequence[_Entry]) -> None:
    names, digests = dict[str, _Entry](), dict[str, _Entry]()
    for entry in entries:
        name = entry.scenario.name
        if name in names:
            raise ScenarioError(f"two scenarios are called {name!r}; give each a name of its own")
        if entry.digest in digests:
            other = digests[entry.digest].scenario.name
            raise ScenarioError(f"{name!r} is the same as {other!r} but for its name")
        names[name] = digests[entry.digest] = entry


def _data_key(scenario: Scenario) -> str:
    return repr(scenario.data)


def _reference(scenario: Scenario) -> _Entry:
    return _Entry(scenario, f"centralised-{reference_digest(scenario)}", centralised=True)


def _facts(split: Split) -> dict[str, Any]:
    held_out = 2 * split.user_count
    return {
        "users": split.user_count,
        "items": split.item_count,
        "interactions": len(split.train.items) + held_out,
        "task": "next action" if split.repeats else "new item",
    }


def _baselines(split: Split) -> dict[str, Any]:
    found = {"popularity": evaluate(popularity(split), split, which="test")}
    if split.repeats:
        frequency = own_frequency(split, which="test")
        found["own_frequency"] = evaluate(frequency, split, which="test")
    return found
