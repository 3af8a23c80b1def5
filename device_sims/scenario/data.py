"""The table [data]: which interactions the devices have, and when."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from device_sims.data_options import DATASETS, datasets_with
from device_sims.scenario.errors import ScenarioError
from device_sims.scenario.table import Checks, read_table, refuse_unknown

__all__ = ["DataChoice", "read_data"]

MOST_FILES = 16
_NUMBERS: Mapping[str, Any] = {
    "items": int,
    **dict.fromkeys(("mean_interactions", "drift_share", "drift_at"), (int, float)),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DataChoice:
    """Which interactions the devices have.

    Attributes:
        dataset: ``synthetic``, ``movielens``, ``frappe``, ``smartthings`` or ``csv``.
        files: its files; none for ``synthetic``.
        users: so many users, drawn at random, one a device; 0 for all (synthetic: 200).
        options: of the loader, as `rivulet-fleet demo --help` names them, with underscores.
        replay: interactions come as time goes by, in the order and at the distances that their
            times have, and quality is about what comes next. Otherwise a device has all of them
            from the start.
        history: replay: share of the interactions, the earliest of all, that are there at the
            start, 0 to 1.
        future: replay: share of the interactions, the latest of all, that come after the end: only
            the evaluation knows of them, 0 to 1. Together with ``history`` less than 1.
    """

    dataset: str = "synthetic"
    files: tuple[Path, ...] = ()
    users: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)
    replay: bool = False
    history: float = 0.5
    future: float = 0.1

    @property
    def source(self) -> "DataChoice":
        """The same data, whenever they come."""
        plain = DataChoice()
        return replace(self, replay=plain.replay, history=plain.history, future=plain.future)


def read_data(given: object) -> DataChoice:
    """Read the table.

    Raises:
        ScenarioError: names the key, the value and what was expected.
    """
    raw = dict(given) if isinstance(given, Mapping) else given
    options = _loader_options(raw.pop("options", {})) if isinstance(raw, dict) else {}
    data = read_table(DataChoice, raw, "data")
    checks = Checks(data, "data")
    if len(data.files) > MOST_FILES:
        raise checks.refusal("files", list(data.files), f"at most {MOST_FILES} paths")
    for file in data.files:
        if not isinstance(file, str):
            raise ScenarioError(f"data.files has {file!r:.80}; expected paths")
    checks.number("history", 0.0, 1.0)
    checks.number("future", 0.0, 1.0)
    if data.replay and data.history + data.future >= 1.0:
        expected = f"less than {1.0 - data.history:g}, what history leaves, and 0 or more"
        raise checks.refusal("future", data.future, expected)
    checks.choice("dataset", tuple(DATASETS))
    checks.integer("users", 0, 10_000_000)
    _check_files(data, checks)
    for option in options:
        if option not in DATASETS[data.dataset]:
            raise ScenarioError(
                f"data.options.{option} goes with {datasets_with(option)}; data.dataset is "
                f"{data.dataset}"
            )
    return replace(data, files=tuple(Path(file) for file in data.files), options=options)


def _check_files(data: DataChoice, checks: Checks) -> None:
    wanted = {"synthetic": (0, 0), "smartthings": (1, MOST_FILES)}
    least, most = wanted.get(data.dataset, (1, 1))
    if not least <= len(data.files) <= most:
        count = f"{least} to {most} paths" if most > 1 else "one path" if most else "none"
        raise checks.refusal("files", list(data.files), f"{count} with dataset {data.dataset}")


def _loader_options(given: object) -> Mapping[str, Any]:
    if not isinstance(given, Mapping):
        raise ScenarioError(f"data.options is {given!r:.80}; expected a table")
    known = dict.fromkeys(option for taken in DATASETS.values() for option in taken)
    refuse_unknown(given, known, "data.options")
    for key in _NUMBERS.keys() & given.keys():
        kind, value = _NUMBERS[key], given[key]
        if isinstance(value, bool) or not isinstance(value, kind):
            expected = "a whole number" if kind is int else "a number"
            raise ScenarioError(f"data.options.{key} is {value!r:.80}; expected {expected}")
    return {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
