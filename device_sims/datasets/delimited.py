"""Any table of interactions: comma, tab or semicolon between the fields, a header on top."""

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from device_sims.datasets.errors import DatasetError, FormatError
from device_sims.datasets.interactions import Interactions, LabelColumn, index_events
from device_sims.datasets.layout import Layout
from device_sims.datasets.lines import first_lines, read_events

__all__ = ["FILE_ORDER", "load_delimited"]

FILE_ORDER = "The file has no times: the order of its lines is taken for the order in time."

_SEPARATORS = {"\t": "<TAB>", ";": ";", ",": ","}


def load_delimited(
    path: Path | str,
    *,
    user_column: str = "user",
    item_column: str = "item",
    time_column: str | None = "time",
    context_columns: Sequence[str] = (),
    feature_columns: Sequence[str] = (),
    unknown_label: str = "",
    repeats: bool = False,
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
        context_columns: Columns with categorical facts about an interaction; any text.
        feature_columns: Columns with categorical facts about the item; any text.
        unknown_label: What says in those that nothing is known; a blank field always does.
        repeats: Whether further uses of an item are interactions too, see `Interactions`.
        name: What reports call the data set; the file's name without its ending by default.
        skip_bad_lines: Leave broken lines out and count them, instead of stopping at the first.

    Raises:
        FormatError: The header lacks a named column.
        LineError: A line is broken, and `skip_bad_lines` is off.
        DatasetError: The file cannot be read, or no user has enough interactions.
    """
    path = Path(path)
    extra = dict.fromkeys([*context_columns, *feature_columns])
    layout = _layout(path, user_column, item_column, time_column, list(extra))
    events = read_events(path, layout, skip_bad_lines=skip_bad_lines)
    columns = {name: _blanked(column, unknown_label) for name, column in events.columns.items()}
    return index_events(
        path.stem if name is None else name,
        replace(events, columns=columns),
        context=context_columns,
        features=feature_columns,
        repeats=repeats,
        notes=[FILE_ORDER] if time_column is None else [],
    )


def _blanked(column: LabelColumn, unknown_label: str) -> LabelColumn:
    labels = ["" if label.strip() == unknown_label else label for label in column.labels]
    return replace(column, labels=labels)


def _layout(path: Path, user: str, item: str, time: str | None, extra: Sequence[str]) -> Layout:
    named = [column for column in (user, item, time, *extra) if column is not None]
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
        labels={column: columns.index(column) for column in extra},
        numeric_labels=False,
        quoted=True,
        header=True,
        expected=_SEPARATORS[separator].join(columns)
        + ("" if time is None else f", {time} a whole number"),
    )
