"""How interactions come in: a CSV file, or a JSON event from a command or a local topic."""

import csv
import json
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from pathlib import Path

from edge_agent.errors import InteractionError

__all__ = ["BrokenLine", "ImportReport", "check_item", "import_csv", "parse_event", "parse_time"]

LARGEST_ITEM = (1 << 63) - 1
LINES_A_TRANSACTION = 2_000
SHOWN_BROKEN_LINES = 10
MAX_EVENT_BYTES = 4_096
FUTURE_TOLERANCE_S = 86_400.0


@dataclass(frozen=True, slots=True)
class BrokenLine:
    """A line that was skipped: its number in the file, from 1, and what is wrong with it."""

    number: int
    reason: str


@dataclass(slots=True)
class ImportReport:
    """What became of a file.

    Attributes:
        added: interactions that are new.
        known: interactions that were there already.
        broken: number of lines skipped.
        examples: the first few of those.
    """

    added: int = 0
    known: int = 0
    broken: int = 0
    examples: list[BrokenLine] = field(default_factory=list)

    def skip(self, number: int, reason: str) -> None:
        """Count a broken line."""
        self.broken += 1
        if len(self.examples) < SHOWN_BROKEN_LINES:
            self.examples.append(BrokenLine(number, reason))


def check_item(item: int, catalogue: int | None) -> int:
    """The item id itself.

    Args:
        item: the id.
        catalogue: size of the catalogue; None when no manifest is known yet.

    Raises:
        InteractionError: the id is outside the catalogue.
    """
    if not 0 <= item <= LARGEST_ITEM:
        raise InteractionError("expected an id of at least 0", found=f"item is {item}")
    if catalogue is not None and item >= catalogue:
        raise InteractionError(
            f"the catalogue has {catalogue} items, 0 to {catalogue - 1}", found=f"item is {item}"
        )
    return item


def parse_time(text: str, *, now: float) -> float:
    """Unix seconds from a number or an ISO 8601 time (without a zone: this device's).

    A time far in the future would stay the latest interaction, the one that is held out, for ever.

    Args:
        text: the time.
        now: unix seconds.

    Raises:
        InteractionError: it is neither, before 1970, or more than a day in the future.
    """
    found = f"time is {text!r:.60}"
    try:
        at = float(text)
    except ValueError:
        try:
            at = datetime.fromisoformat(text.strip()).timestamp()
        except (ValueError, OverflowError, OSError):
            at = math.nan
    if not math.isfinite(at):
        raise InteractionError("expected unix seconds or ISO 8601", found=found)
    if at < 0.0:
        raise InteractionError("expected unix seconds, which are not negative", found=found)
    if at > now + FUTURE_TOLERANCE_S:
        raise InteractionError(
            "expected unix seconds (not milliseconds), at most a day after this device's clock",
            found=found,
        )
    return at


def parse_event(
    payload: bytes, *, catalogue: int | None, now: float, retained: bool = False
) -> tuple[int, float]:
    """Item and unix seconds of a JSON event ``{"item": 12, "at": 1700000000.5}``.

    Other keys are ignored, so that a hub may publish one event for several readers.

    Args:
        payload: the message as received.
        catalogue: size of the catalogue; None when no manifest is known yet.
        now: unix seconds, for an event without ``at``.
        retained: whether it may have happened long before now: then it needs its ``at``.

    Raises:
        InteractionError: not such an event.
    """
    if len(payload) > MAX_EVENT_BYTES:
        raise InteractionError(f"event has {len(payload)} bytes; at most {MAX_EVENT_BYTES}")
    try:
        event = json.loads(payload)
    except (ValueError, RecursionError):
        raise InteractionError("expected JSON") from None
    if not isinstance(event, dict) or type(event.get("item")) is not int:
        raise InteractionError("expected an object with an integer item")
    at, item = event.get("at"), check_item(event["item"], catalogue)
    if at is not None:
        return item, parse_time(str(at), now=now)
    if retained:
        raise InteractionError("a retained event without its time is ignored")
    return item, now


def import_csv(
    path: Path,
    add: Callable[[Iterable[tuple[int, float]]], int],
    *,
    now: float,
    item_column: str = "item",
    time_column: str = "time",
    delimiter: str = ",",
    catalogue: int | None = None,
) -> ImportReport:
    """Import a CSV file that has a header; broken lines are skipped and reported.

    Each line is read by itself, so that a stray quotation mark costs that line and no other; a
    quoted field cannot go over several lines.

    Args:
        path: the file, UTF-8.
        add: stores events and returns how many were new, as ``Store.add_interactions`` does.
        now: unix seconds.
        item_column: header of the column with item ids.
        time_column: header of the column with times.
        delimiter: one character.
        catalogue: size of the catalogue; None when no manifest is known yet.

    Raises:
        InteractionError: the file cannot be read, or lacks a column.
    """
    report = ImportReport()
    try:
        with path.open(newline="", encoding="utf-8", errors="replace") as file:
            header = _fields(next(file, ""), delimiter)
            columns = _columns(path, header, item_column, time_column)
            events = _events(file, delimiter, columns, catalogue, now, report)
            while batch := list(islice(events, LINES_A_TRANSACTION)):
                added = add(batch)
                report.added += added
                report.known += len(batch) - added
    except OSError as error:
        raise InteractionError(f"cannot read {path}: {error.strerror}") from None
    except csv.Error as error:
        raise InteractionError(f"{path} is not CSV: {error}") from None
    return report


def _columns(path: Path, header: list[str], *wanted: str) -> tuple[int, ...]:
    names = [name.strip().lstrip("\ufeff") for name in header]
    for name in wanted:
        if name not in names:
            raise InteractionError(
                f"{path} has no column {name!r}; its header is {', '.join(names)!r:.200}"
            )
    return tuple(names.index(name) for name in wanted)


def _fields(line: str, delimiter: str) -> list[str]:
    return next(csv.reader([line], delimiter=delimiter), [])


def _events(
    lines: Iterable[str],
    delimiter: str,
    columns: tuple[int, ...],
    catalogue: int | None,
    now: float,
    report: ImportReport,
) -> Iterator[tuple[int, float]]:
    # The header was line 1.
    for number, line in enumerate(lines, 2):
        try:
            row = _fields(line, delimiter)
            if not row:
                continue
            if len(row) <= max(columns):
                raise InteractionError(f"the line has {len(row)} columns")
            item, at = (row[column] for column in columns)
            yield check_item(_integer(item), catalogue), parse_time(at, now=now)
        except (InteractionError, csv.Error) as error:
            report.skip(number, str(error))


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise InteractionError("expected an integer", found=f"item is {text!r:.60}") from None
