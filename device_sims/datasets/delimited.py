"""Any table of interactions: comma, tab or semicolon between the fields, a header on top."""

import csv
from pathlib import Path

from device_sims.datasets.errors import DatasetError, FormatError
from device_sims.datasets.interactions import Interactions, index_events
from device_sims.datasets.layout import Layout
from device_sims.datasets.lines import first_lines, read_events

__all__ = ["load_delimited"]

_SEPARATORS = {"\t": "<TAB>", ";": ";", ",": ","}


def load_delimited(
    path: Path | str,
    *,
    user_column: str = "user",
    item_column: str = "item",
    time_column: str | None = "time",
    name: str | None = None,
    skip_bad_lines: bool = False,
) -> Interactions:
    r"""Read a CSV or TSV file whose first line names the columns.

    The separator is the tab, semicolon or comma that the header holds most of. Fields may be
    quoted; a record is one line. Other columns are ignored, whatever they hold.

    Args:
        path: The file, UTF-8.
        user_column: The column that says who; any text.
        item_column: The column that says what; any text.
        time_column: The column that orders a user's interactions, a whole number in any unit;
            None takes them in the order of the file.
        name: What reports call the data set; the file's name without its ending by default.
        skip_bad_lines: Leave broken lines out and count them, instead of stopping at the first.

    Raises:
        FormatError: The header lacks a named column.
        LineError: A line is broken, and `skip_bad_lines` is off.
        DatasetError: The file cannot be read, or no user has enough interactions.
    """
    path = Path(path)
    layout = _layout(path, user_column, item_column, time_column)
    events = read_events(path, layout, skip_bad_lines=skip_bad_lines)
    return index_events(path.stem if name is None else name, events)


def _layout(path: Path, user: str, item: str, time: str | None) -> Layout:
    named = [column for column in (user, item, time) if column is not None]
    lines = first_lines(path, 1)
    header = lines[0] if lines else ""
    separator = max(_SEPARATORS, key=header.count)
    columns = [field.strip() for field in next(csv.reader([header], delimiter=separator), [])]
    if not set(named) <= set(columns):
        wanted = ", ".join(map(repr, named))
        raise FormatError(path, seen=header, expected=f"a header with the columns {wanted}")
    for column in named:
        if columns.count(column) > 1:
            raise DatasetError(f"{path}: the header names the column {column!r} more than once")
    return Layout(
        separator=separator,
        width=len(columns),
        user=columns.index(user),
        item=columns.index(item),
        time=None if time is None else columns.index(time),
        numeric_labels=False,
        quoted=True,
        header=True,
        expected=_SEPARATORS[separator].join(columns)
        + ("" if time is None else f", {time} a whole number"),
    )
