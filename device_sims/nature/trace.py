"""When devices were connected, from a file.

A CSV file, comma, semicolon or tab, whose first line names the columns:

    device,from_s,to_s,update_s,up_bytes_s,down_bytes_s
    kitchen,0,3600,,,
    kitchen,7200,9000,12.5,50000,200000
    phone,1800,2400,,,

``device`` is any text, ``from_s`` and ``to_s`` are seconds since the run began. The other three may
be left out, as columns or line by line: then the device's class says how fast it is. Lines may come
in any order; the stretches of a device may touch and must not overlap. The devices of the file are
dealt to those of the fleet in the order in which they first appear, and again from the first where
the fleet has more.
"""

import csv
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from device_sims.datasets import DatasetError, FormatError, LineError

__all__ = ["TracedStretch", "read_trace"]

REQUIRED = ("device", "from_s", "to_s")
OPTIONAL = ("update_s", "up_bytes_s", "down_bytes_s")
EXPECTED = "device,from_s,to_s and perhaps update_s,up_bytes_s,down_bytes_s"
LATEST_S = 1e9


@dataclass(frozen=True, slots=True)
class TracedStretch:
    """One line.

    Attributes:
        from_s: when the connection began, in seconds since the run began.
        to_s: when it ended.
        given: of ``update_s``, ``up_bytes_s`` and ``down_bytes_s`` what the line says.
    """

    from_s: float
    to_s: float
    given: Mapping[str, float]


def read_trace(path: Path) -> Sequence[Sequence[TracedStretch]]:
    """Read a file.

    Returns:
        For each device of the file its stretches, in order.

    Raises:
        LineError: a line is broken, or overlaps another one.
        DatasetError: the file cannot be read, lacks a column or has no lines.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            devices = _read(path, file)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no UTF-8 text"
        raise DatasetError(f"{path} cannot be read: {reason}") from None
    if not devices:
        raise DatasetError(f"{path} has no stretches below its header")
    return [[stretch for stretch, _ in _in_order(path, lines)] for lines in devices.values()]


_Line = tuple[TracedStretch, "_Place"]


@dataclass(frozen=True, slots=True)
class _Place:
    number: int
    text: str

    def error(self, path: Path, reason: str) -> LineError:
        return LineError(
            path, line_number=self.number, text=self.text, reason=reason, expected=EXPECTED
        )


def _read(path: Path, file: TextIO) -> dict[str, list[_Line]]:
    lines = _lines(file)
    header = next(lines, None)
    text = header.text if header else ""
    separator = max("\t;,", key=text.count)
    columns = [field.strip() for field in text.split(separator)]
    unknown = set(columns) - {*REQUIRED, *OPTIONAL}
    if not set(REQUIRED) <= set(columns) or unknown or len(set(columns)) < len(columns):
        raise FormatError(path, seen=text, expected=f"a header with the columns {EXPECTED}")
    devices: dict[str, list[_Line]] = {}
    for place in lines:
        fields = [field.strip() for field in next(csv.reader([place.text], delimiter=separator))]
        if len(fields) != len(columns):
            reason = f"{len(fields)} fields, and the header has {len(columns)}"
            raise place.error(path, reason)
        values = dict(zip(columns, fields, strict=True))
        if not values["device"]:
            raise place.error(path, "the device is missing")
        devices.setdefault(values["device"], []).append((_stretch(path, place, values), place))
    return devices


def _lines(file: TextIO) -> Iterator[_Place]:
    for number, line in enumerate(file, start=1):
        if not line.isspace():
            yield _Place(number, line.rstrip("\r\n"))


def _stretch(path: Path, place: _Place, values: Mapping[str, str]) -> TracedStretch:
    from_s = _number(path, place, values, "from_s")
    to_s = _number(path, place, values, "to_s")
    if to_s <= from_s:
        raise place.error(path, f"to_s is {to_s:g}, which is not after from_s, {from_s:g}")
    given = {name: _number(path, place, values, name) for name in OPTIONAL if values.get(name)}
    for name, value in given.items():
        if value <= 0.0:
            raise place.error(path, f"{name} is {value:g}, and must be above 0")
    return TracedStretch(from_s, to_s, given)


def _number(path: Path, place: _Place, values: Mapping[str, str], name: str) -> float:
    try:
        value = float(values[name])
    except ValueError:
        value = -1.0
    # Refuses NaN, too.
    if not 0.0 <= value <= LATEST_S:
        raise place.error(path, f"{name} is {values[name]!r}, no number from 0 to {LATEST_S:g}")
    return value


def _in_order(path: Path, lines: list[_Line]) -> list[_Line]:
    ordered = sorted(lines, key=lambda line: line[0].from_s)
    for (before, _), (after, place) in itertools.pairwise(ordered):
        if after.from_s < before.to_s:
            other = f"{before.from_s:g} to {before.to_s:g}"
            raise place.error(path, f"it overlaps another stretch of this device, {other}")
    return ordered
