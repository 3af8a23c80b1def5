"""SmartThings: what people had the devices in their homes do, action after action.

The logs that Jeon, Kim, Yoon, Lee, Kang published with "Accurate action recommendation for smart
home via two-level encoders and commonsense knowledge" (CIKM 2022), as tables of windows: ten
consecutive actions each, with day of the week and three-hour slot.

Which home a window comes from is not said. But the windows were cut from longer logs, each one
action after the one before, and then shuffled. So windows are joined again where one goes on from
another: its last actions, days and slots included, are the first of the other. What is joined to
one log is taken for one household. That is a rule and no fact: a home may have several logs, and
two homes may look alike for a while.
"""

from collections import defaultdict
from collections.abc import Hashable, Sequence
from itertools import chain
from pathlib import Path
from typing import TypeVar

import numpy as np

from device_sims.datasets.errors import DatasetError, FormatError
from device_sims.datasets.interactions import Events, Interactions, LabelColumn, index_events
from device_sims.datasets.layout import Layout
from device_sims.datasets.lines import first_lines, read_events

__all__ = ["SMARTTHINGS_CONTEXT", "SMARTTHINGS_FEATURES", "join_windows", "load_smartthings"]

SMARTTHINGS_CONTEXT = ("day_of_week", "hour3")
SMARTTHINGS_FEATURES = ("device",)
NOTE = (
    "The data says nothing about households. Windows of actions that overlap were joined to logs, "
    "and each log is taken for a household; actions are in the order of the log."
)

_HEADER = "instance,step,day_of_week,hour3,device,control,device_control"
_LAYOUT = Layout(
    separator=",",
    width=7,
    user=0,
    time=1,
    labels={"day_of_week": 2, "hour3": 3, "device": 4},
    item=6,
    numeric_labels=True,
    quoted=False,
    header=True,
    expected=f"{_HEADER}, all numbers",
)
_WINDOW = 10
_LEAST_OVERLAP = 5
_Row = TypeVar("_Row", bound=Hashable)


def load_smartthings(
    paths: Sequence[Path | str],
    *,
    context_columns: Sequence[str] = SMARTTHINGS_CONTEXT,
    feature_columns: Sequence[str] = SMARTTHINGS_FEATURES,
    name: str = "smartthings",
    skip_bad_lines: bool = False,
) -> Interactions:
    """Read tables of windows, join the windows to logs, and take each log for a household.

    An item is an action, `device_control`; actions repeat. The published parts for training,
    validation and test were drawn from overlapping windows, so read them together: logs are whole
    then, and what is held out is the end of each.

    Args:
        paths: Tables of one country, with the columns instance, step, day_of_week, hour3, device,
            control and device_control.
        context_columns: Columns with the situation.
        feature_columns: Columns that describe the action.
        name: What reports call the data set.
        skip_bad_lines: Leave broken lines and the rest of their windows out and count the lines,
            instead of stopping at the first.

    Raises:
        FormatError: A header is another one.
        LineError: A line is broken, and `skip_bad_lines` is off.
        DatasetError: A file cannot be read, a window is not whole, or a column is unknown.
    """
    for column in (*context_columns, *feature_columns):
        if column not in _LAYOUT.labels:
            known = ", ".join(_LAYOUT.labels)
            raise DatasetError(f"{name}: there is no column {column!r}; expected one of {known}")
    windows: list[_Window] = []
    skipped = 0
    for path in map(Path, paths):
        events = _read(path, skip_bad_lines=skip_bad_lines)
        windows += _windows(path, events, skip_bad_lines=skip_bad_lines)
        skipped += events.skipped_lines
    return index_events(
        name,
        _events(join_windows(windows), skipped),
        context=context_columns,
        features=feature_columns,
        repeats=True,
        notes=[NOTE],
    )


def join_windows(windows: Sequence[Sequence[_Row]]) -> list[list[_Row]]:
    """Join windows that were cut from the same log, equal ones being one.

    A window goes on from another when its first rows are the last of the other, all but at most
    half of a window. Windows that were closest in the log are joined first; of several that fit
    equally well, the first in the file. No log runs in a circle.

    Args:
        windows: Each of the same length; a row is anything that can be compared and hashed.

    Returns:
        The rows of each log, logs in the order of their first windows.
    """
    distinct = list(dict.fromkeys(map(tuple, windows)))
    following: dict[int, tuple[int, int]] = {}
    # For the last window of a log its first one, and the other way round.
    first, last = list(range(len(distinct))), list(range(len(distinct)))
    taken: set[int] = set()
    for step in range(1, _WINDOW - _LEAST_OVERLAP + 1):
        starting: defaultdict[tuple[_Row, ...], list[int]] = defaultdict(list)
        for at, window in enumerate(distinct):
            starting[window[:-step]].append(at)
        for at, window in enumerate(distinct):
            if at in following:
                continue
            for after in starting[window[step:]]:
                if after not in taken and first[at] != after:
                    following[at] = (after, step)
                    taken.add(after)
                    first[last[after]], last[first[at]] = first[at], last[after]
                    break
    logs = []
    for at in range(len(distinct)):
        if at in taken:
            continue
        log, here = list(distinct[at]), at
        while here in following:
            here, step = following[here]
            log += distinct[here][-step:]
        logs.append(log)
    return logs


_Action = tuple[str, ...]
_Window = list[_Action]


def _read(path: Path, *, skip_bad_lines: bool) -> Events:
    header = first_lines(path, 1)
    if header != [_HEADER]:
        raise FormatError(path, seen="".join(header), expected=f"the header {_HEADER}")
    return read_events(path, _LAYOUT, skip_bad_lines=skip_bad_lines)


def _windows(path: Path, events: Events, *, skip_bad_lines: bool) -> list[_Window]:
    """The windows of a file; each action is its label and those of the layout's columns."""
    columns = [
        LabelColumn(codes=events.items, labels=events.item_labels),
        *(events.columns[name] for name in _LAYOUT.labels),
    ]
    actions = zip(
        *(map(column.labels.__getitem__, column.codes.tolist()) for column in columns),
        strict=True,
    )
    windows: defaultdict[int, _Window] = defaultdict(list)
    steps: defaultdict[int, list[int]] = defaultdict(list)
    for number, step, action in zip(
        events.users.tolist(), events.times.tolist(), actions, strict=True
    ):
        windows[number].append(action)
        steps[number].append(step)
    whole = []
    for number, window in windows.items():
        if steps[number] == list(range(_WINDOW)):
            whole.append(window)
        elif not skip_bad_lines:
            raise DatasetError(
                f"{path}: the window {events.user_labels[number]} has the steps "
                f"{steps[number]}; expected 0 to {_WINDOW - 1} in order"
            )
    return whole


def _events(logs: Sequence[_Window], skipped_lines: int) -> Events:
    lengths = [len(log) for log in logs]
    items, *columns = (_column(labels) for labels in zip(*chain(*logs), strict=True))
    return Events(
        users=np.repeat(np.arange(len(logs)), lengths),
        items=items.codes,
        times=np.concatenate([np.arange(length) for length in lengths]),
        user_labels=[f"household-{number:04}" for number in range(len(logs))],
        item_labels=items.labels,
        columns=dict(zip(_LAYOUT.labels, columns, strict=True)),
        skipped_lines=skipped_lines,
    )


def _column(labels: Sequence[str]) -> LabelColumn:
    distinct, codes = np.unique(labels, return_inverse=True)
    return LabelColumn(codes=codes, labels=distinct.tolist())
