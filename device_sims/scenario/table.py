"""One table of a scenario: every key is of the type of its default, and no other is taken."""

import difflib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from device_sims.scenario.errors import ScenarioError
from wire.checks import Fields

__all__ = ["MAX_S", "Checks", "nearest", "plain", "read_table", "refuse_unknown"]

MAX_S = 1e9
"""No time in a scenario is longer."""

T = TypeVar("T")
_EXPECTED: Mapping[type, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    tuple: "a list",
    dict: "a table",
}


def read_table(
    kind: type[T], given: object, where: str, *, start: Mapping[str, Any] | None = None
) -> T:
    """Read a table.

    Args:
        kind: a dataclass; what it has tuples for, TOML has lists for, and for paths texts. Of a
            dict the keys are left to the caller.
        given: the decoded table.
        where: its name, for errors.
        start: values of keys that are not given, instead of the dataclass's defaults.

    Raises:
        ScenarioError: a key is unknown or missing, or a value is of another type.
    """
    if not isinstance(given, Mapping):
        raise ScenarioError(f"{where} is {given!r:.80}; expected a table, [{where}]")
    known = {entry.name: entry for entry in fields(kind)}  # type: ignore[arg-type]
    refuse_unknown(given, known, where)
    values = {key: value for key, value in (start or {}).items() if key in known}
    for key, value in given.items():
        values[key] = _typed(value, _default(known[key]), f"{where}.{key}")
    for key, entry in known.items():
        if key not in values and entry.default is MISSING and entry.default_factory is MISSING:
            raise ScenarioError(f"{where}.{key} is missing")
    return kind(**values)


def refuse_unknown(given: Iterable[object], known: Collection[str], where: str) -> None:
    """Refuse a key that a table does not take."""
    for key in given:
        if key not in known:
            raise ScenarioError(f"{where} has an unknown key {key!r}{nearest(key, known)}")


def nearest(name: object, known: Iterable[str]) -> str:
    """The end of an error about an unknown name: the one that was meant, or all that there are."""
    close = difflib.get_close_matches(str(name), list(known), n=1)
    return f"; did you mean {close[0]}?" if close else f"; it takes {', '.join(sorted(known))}"


def plain(table: Any) -> dict[str, Any]:
    """A table as TOML has it; see ``read_table``."""
    return {entry.name: _plain(getattr(table, entry.name)) for entry in fields(table)}


class Checks(Fields):
    """The ranges of a table's values.

    Args:
        table: the dataclass.
        where: its name, for errors.
    """

    def __init__(self, table: Any, where: str) -> None:
        values = {entry.name: getattr(table, entry.name) for entry in fields(table)}
        super().__init__(values, where=where, error=ScenarioError)

    def above_zero(self, name: str, most: float) -> None:
        """Refuse a number that is not above 0 and at most ``most``."""
        if (value := self.number(name, 0.0, most)) <= 0.0:
            raise self.refusal(name, value, f"a number above 0 and at most {most:g}")

    def numbers(self, names: Iterable[str], low: float, high: float) -> None:
        """Refuse numbers that are not in [low, high]."""
        for name in names:
            self.number(name, low, high)


def _default(entry: Field[Any]) -> object:
    return entry.default if entry.default_factory is MISSING else entry.default_factory()


def _typed(value: Any, default: object, name: str) -> object:
    kind = next((k for k in (bool, int, float, tuple, dict) if isinstance(default, k)), str)
    allowed: Any = {float: (int, float), tuple: list}.get(kind, kind)
    if not isinstance(value, allowed) or (isinstance(value, bool) and kind is not bool):
        raise ScenarioError(f"{name} is {value!r:.80}; expected {_EXPECTED[kind]}")
    if isinstance(default, Path):
        return Path(value)
    return value if kind in (bool, int, str) else kind(value)


def _plain(value: object) -> object:
    if is_dataclass(value):
        return plain(value)
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    if isinstance(value, Path):
        return "" if value == Path() else str(value)
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    return value
