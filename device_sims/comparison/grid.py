"""A file of many scenarios: every combination of one choice from each axis of its grid.

    like = "base.toml"

    [grid.speed.slow.fleet]
    update_s = 60

    [grid.speed.quick.fleet]
    update_s = 2

    [grid.buffer."20".aggregation]
    buffer_size = 20

    [grid.buffer."40".aggregation]
    buffer_size = 40

makes four scenarios, named ``slow, 20``, ``slow, 40``, ``quick, 20`` and ``quick, 40``. A choice
has tables of a scenario, which go over those of the file, and a later axis over an earlier one.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from device_sims.scenario import Scenario, ScenarioError, overlay, read_document
from wire.errors import WireError

__all__ = ["find_scenarios"]

MOST = 1_000


def find_scenarios(paths: list[Path], data_dir: Path | None = None) -> list[Scenario]:
    """The scenarios of files and folders; a folder's files are in the order of their names.

    Args:
        paths: of files, or of folders with files that end in ``.toml``.
        data_dir: where data files and traces are that a scenario names by a relative path; None for
            the current folder.

    Raises:
        ScenarioError: a file cannot be read, a value is refused, or a folder has none.
    """
    found: list[Scenario] = []
    for path in paths:
        files = sorted(path.glob("*.toml")) if path.is_dir() else [path]
        if not files:
            raise ScenarioError(f"{path} has no scenarios; expected files that end in .toml")
        for file in files:
            found += _scenarios(file)
    return found if data_dir is None else [_with_data(one, data_dir) for one in found]


def _scenarios(path: Path) -> Iterator[Scenario]:
    document = read_document(path)
    grid = _checked(path, document.pop("grid", {}))
    for combination in product(*(axis.items() for axis in grid.values())):
        combined = document
        for _, tables in combination:
            combined = overlay(combined, tables)
        names = [name for name, _ in combination]
        if names:
            combined = {**combined, "name": ", ".join(names)}
        try:
            yield Scenario.from_dict(combined, name=path.stem)
        except WireError as error:
            where = f"{path}, {', '.join(names)}" if names else str(path)
            raise ScenarioError(f"{where}: {error}") from None


def _checked(path: Path, grid: object) -> Mapping[str, Mapping[str, Mapping[str, Any]]]:
    if not isinstance(grid, Mapping):
        raise ScenarioError(f"{path}: grid is {grid!r:.80}; expected tables [grid.AXIS.CHOICE]")
    count = 1
    for axis, choices in grid.items():
        if not isinstance(choices, Mapping) or not choices:
            raise ScenarioError(
                f"{path}: grid.{axis} is {choices!r:.80}; expected tables [grid.{axis}.CHOICE]"
            )
        for choice, tables in choices.items():
            if not isinstance(tables, Mapping):
                raise ScenarioError(
                    f"{path}: grid.{axis}.{choice} is {tables!r:.80}; expected tables of a scenario"
                )
        count *= len(choices)
    if count > MOST:
        raise ScenarioError(f"{path}: grid has {count:,} combinations; expected at most {MOST:,}")
    return grid


def _with_data(scenario: Scenario, data_dir: Path) -> Scenario:
    data, fleet = scenario.data, scenario.fleet
    files = tuple(data_dir / file for file in data.files)
    trace = data_dir / fleet.trace if fleet.is_traced else fleet.trace
    return replace(scenario, data=replace(data, files=files), fleet=replace(fleet, trace=trace))
