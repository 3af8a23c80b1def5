"""How a line holds an interaction, and how many lines are taken apart at once."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from math import isfinite

import numpy as np

from device_sims.datasets.interactions import IntArray

__all__ = ["Columns", "Layout", "take_apart"]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a line is made up. Columns count from 0.

    Attributes:
        separator: Between two fields; one character when `quoted`.
        width: Fields in a line.
        user: Column of the user's label.
        item: Column of the item's label.
        time: Column of a whole number that orders interactions; None orders them as in the file.
        rating: Column that must hold a number, whatever it is; None checks nothing.
        labels: Further columns to keep, by name; they may hold anything.
        numeric_labels: Labels are whole numbers; otherwise any text that is not blank.
        quoted: Fields may stand in double quotes (and then hold the separator, but no line end).
        header: The first line names the columns and is no interaction.
        expected: A good line in words, for error messages.
    """

    separator: str
    width: int
    user: int
    item: int
    time: int | None
    rating: int | None = None
    labels: Mapping[str, int] = field(default_factory=dict)
    numeric_labels: bool
    quoted: bool
    header: bool
    expected: str


@dataclass(frozen=True)
class Columns:
    """Some lines, taken apart.

    Attributes:
        users: A label for each line.
        items: A label for each line.
        times: int64 [lines], or [0] when the layout has no time.
        labels: For each of the layout's further columns a label for each line.
    """

    users: Sequence[str]
    items: Sequence[str]
    times: IntArray
    labels: Mapping[str, Sequence[str]]


def take_apart(lines: Sequence[str], layout: Layout) -> Columns:
    """Take lines apart, a whole column at a time.

    Args:
        lines: Each ends with a line feed, a carriage return before it allowed.
        layout: How each of them is made up.

    Raises:
        ValueError: At least one line is broken or blank. Given a single line, the message says
            what is wrong with it.
    """
    fields = _quoted_columns(lines, layout) if layout.quoted else _plain_columns(lines, layout)
    users, items = fields[layout.user], fields[layout.item]
    _check_labels("user", users, layout)
    _check_labels("item", items, layout)
    if layout.rating is not None:
        _check_numbers("rating", fields[layout.rating])
    times = [] if layout.time is None else fields[layout.time]
    labels = {name: fields[column] for name, column in layout.labels.items()}
    return Columns(users, items, _whole_numbers("time", times), labels)


def _plain_columns(lines: Sequence[str], layout: Layout) -> list[Sequence[str]]:
    """Split all lines in one go.

    A line end stands in the last field of its line and nowhere else, so when every `width`-th
    field has one and there are no more fields, each line has exactly `width` fields.
    """
    width = layout.width
    fields = layout.separator.join(lines).split(layout.separator) if lines else []
    last = fields[width - 1 :: width]
    if len(fields) != width * len(lines) or not all(map(str.endswith, last, repeat("\n"))):
        raise ValueError(f"{len(fields)} fields, not {width}")
    columns: list[Sequence[str]] = [fields[at::width] for at in range(width - 1)]
    return [*columns, list(map(str.rstrip, last, repeat("\r\n")))]


def _quoted_columns(lines: Sequence[str], layout: Layout) -> list[Sequence[str]]:
    try:
        rows = list(csv.reader(lines, delimiter=layout.separator, strict=True))
    except csv.Error as error:
        raise ValueError(f"a quoted field is broken ({error})") from error
    if len(rows) != len(lines):
        raise ValueError("a quoted field runs over the end of a line")
    if not set(map(len, rows)) <= {layout.width}:
        raise ValueError(f"{len(rows[0])} fields, not {layout.width}")
    return [[row[at] for row in rows] for at in range(layout.width)]


def _check_labels(name: str, labels: Sequence[str], layout: Layout) -> None:
    good = str.isdecimal if layout.numeric_labels else str.strip
    if not all(map(good, labels)):
        kind = "a whole number" if layout.numeric_labels else "a label"
        raise ValueError(f"{name} is {labels[0]!r}, not {kind}")


def _check_numbers(name: str, texts: Sequence[str]) -> None:
    try:
        finite = all(map(isfinite, map(float, texts)))
    except ValueError:
        finite = False
    if not finite:
        raise ValueError(f"{name} is {texts[0]!r}, not a number")


def _whole_numbers(name: str, texts: Sequence[str]) -> IntArray:
    try:
        return np.fromiter(map(int, texts), np.int64, count=len(texts))
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{name} is {texts[0]!r}, not a whole number of 64 bits") from error
