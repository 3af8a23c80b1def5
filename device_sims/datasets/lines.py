"""Text files with one interaction a line, read in chunks, broken lines found and named."""

import logging
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count, islice
from pathlib import Path
from typing import TextIO

import numpy as np

from device_sims.datasets.errors import DatasetError, LineError
from device_sims.datasets.interactions import Events, IntArray, LabelColumn
from device_sims.datasets.layout import Layout, take_apart

__all__ = ["first_lines", "read_events"]

_LOGGER = logging.getLogger(__name__)
_CHUNK_LINES = 8_192


def first_lines(path: Path, limit: int) -> list[str]:
    """Return at most `limit` lines from the start of `path`, blank ones and line ends left out.

    Raises:
        DatasetError: The file cannot be read.
    """
    with _opened(path) as file:
        return list(islice((line.rstrip("\r\n") for line in file if not line.isspace()), limit))


def read_events(path: Path, layout: Layout, *, skip_bad_lines: bool = False) -> Events:
    """Read a whole file; blank lines count for nothing.

    Args:
        path: A UTF-8 text file, a byte-order mark allowed.
        layout: How a line is made up.
        skip_bad_lines: Leave broken lines out and count them, instead of stopping at the first.

    Raises:
        LineError: A line is broken, and `skip_bad_lines` is off.
        DatasetError: The file cannot be read.
    """
    user_numbers, item_numbers = _Numbering(), _Numbering()
    columns = {name: _Numbering() for name in layout.labels}
    times = []
    skipped = 0
    with _opened(path) as file:
        line_number = _skip_header(file) + 1 if layout.header else 1
        while lines := list(islice(file, _CHUNK_LINES)):
            lines[-1] = lines[-1].removesuffix("\n") + "\n"
            try:
                read = take_apart(lines, layout)
            except ValueError:
                good, bad = _sift(path, lines, line_number, layout, skip_bad_lines)
                skipped += bad
                read = take_apart(good, layout)
            user_numbers.add(read.users)
            item_numbers.add(read.items)
            times.append(read.times)
            for name, numbers in columns.items():
                numbers.add(read.labels[name])
            line_number += len(lines)
    if skipped:
        _LOGGER.warning("%s: %d broken lines skipped", path, skipped)
    users, items = user_numbers.column(), item_numbers.column()
    return Events(
        users=users.codes,
        items=items.codes,
        times=np.arange(len(users.codes)) if layout.time is None else _joined(times),
        user_labels=users.labels,
        item_labels=items.labels,
        columns={name: numbers.column() for name, numbers in columns.items()},
        skipped_lines=skipped,
    )


class _Numbering:
    """Numbers the labels of a column in the order of their first appearance."""

    def __init__(self) -> None:
        self._numbers: defaultdict[str, int] = defaultdict(count().__next__)
        self._chunks: list[IntArray] = []

    def add(self, labels: Sequence[str]) -> None:
        codes = map(self._numbers.__getitem__, labels)
        self._chunks.append(np.fromiter(codes, np.int64, count=len(labels)))

    def column(self) -> LabelColumn:
        return LabelColumn(codes=_joined(self._chunks), labels=list(self._numbers))


def _joined(chunks: Sequence[IntArray]) -> IntArray:
    return np.concatenate([np.empty(0, dtype=np.int64), *chunks])


def _skip_header(file: TextIO) -> int:
    """Read up to and including the first line that is not blank; return how many lines that is."""
    lines = 1
    while file.readline().isspace():
        lines += 1
    return lines


def _sift(
    path: Path, lines: Sequence[str], first_number: int, layout: Layout, skip_bad_lines: bool
) -> tuple[list[str], int]:
    """Return the good lines of a chunk, and how many are broken.

    Raises:
        LineError: See `read_events`.
    """
    good, bad = [], 0
    for line_number, line in enumerate(lines, start=first_number):
        if line.isspace():
            continue
        try:
            take_apart([line], layout)
        except ValueError as error:
            if not skip_bad_lines:
                raise LineError(
                    path,
                    line_number=line_number,
                    text=line.rstrip("\r\n"),
                    reason=str(error),
                    expected=layout.expected,
                ) from error
            bad += 1
        else:
            good.append(line)
    return good, bad


@contextmanager
def _opened(path: Path) -> Iterator[TextIO]:
    """Open for reading; bytes that are no UTF-8 become escapes, so labels stay distinct."""
    try:
        with path.open(encoding="utf-8-sig", errors="backslashreplace", newline="\n") as file:
            yield file
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}") from error
