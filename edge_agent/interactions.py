"""How interactions come in: a CSV file, or a JSON event from a command or a local topic."""

import csv
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from edge_agent.errors import InteractionError
from wire.manifest import Manifest

__all__ = [
    "BrokenLine",
    "ImportReport",
    "Interaction",
    "check_context",
    "check_item",
    "import_csv",
    "parse_event",
    "parse_time",
]

LARGEST_ID = (1 << 63) - 1
LINES_A_TRANSACTION = 2_000
SHOWN_BROKEN_LINES = 10
MAX_EVENT_BYTES = 4_096
FUTURE_TOLERANCE_S = 86_400.0


class Interaction(NamedTuple):
    """One thing that the person did.

    Attributes:
        item: item id.
        at: unix seconds.
        context: ids by context field, as far as they are known; the id 0 is the same as none.
    """

    item: int
    at: float
    context: Mapping[str, int] = MappingProxyType({})


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


def check_item(item: int, manifest: Manifest | None) -> int:
    """The item id itself.

    Args:
        item: the id.
        manifest: of the task; None when it is not known yet.

    Raises:
        InteractionError: the id is outside the catalogue.
    """
    if not 0 <= item <= LARGEST_ID:
        raise InteractionError("expected an id of at least 0", found=f"item is {item}")
    if manifest is not None and item >= manifest.items:
        raise InteractionError(
            f"the catalogue has {manifest.items} items, 0 to {manifest.items - 1}",
            found=f"item is {item}",
        )
    return item


def check_context(context: Mapping[str, int], manifest: Manifest | None) -> Mapping[str, int]:
    """The context itself.

    Args:
        context: ids by context field.
        manifest: of the task; None when it is not known yet. Then any field may be given, and
            what training cannot use is unknown to it.

    Raises:
        InteractionError: the task has no such field, or an id is outside its size.
    """
    for name, value in context.items():
        found = f"context {name} is {value}"
        if not 0 <= value <= LARGEST_ID:
            raise InteractionError(f"expected an id of at least 0 as {name}", found=found)
        if manifest is not None:
            size = _size(name, manifest)
            if value >= size:
                raise InteractionError(f"{name} has {size} values, 0 to {size - 1}", found=found)
    return context


def _size(name: str, manifest: Manifest) -> int:
    sizes = {field.name: field.size for field in manifest.context}
    if name not in sizes:
        known = ", ".join(sizes) or "none"
        raise InteractionError(f"the task has no context field {name!r:.60}; it has {known}")
    return sizes[name]


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
    payload: bytes, *, manifest: Manifest | None, now: float, retained: bool = False
) -> Interaction:
    """An interaction from JSON: ``{"item": 12, "at": 1700000000.5, "context": {"daytime": 3}}``.

    Other keys, and context fields that the task does not have, are ignored, so that a hub may
    publish one event for several readers.

    Args:
        payload: the message as received.
        manifest: of the task; None when it is not known yet.
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
    at, item = event.get("at"), check_item(event["item"], manifest)
    context = _event_context(event.get("context"), manifest)
    if at is not None:
        return Interaction(item, parse_time(str(at), now=now), context)
    if retained:
        raise InteractionError("a retained event without its time is ignored")
    return Interaction(item, now, context)


def _event_context(context: object, manifest: Manifest | None) -> Mapping[str, int]:
    if context is None:
        return {}
    if not isinstance(context, dict):
        raise InteractionError("expected an object as context")
    if manifest is not None:
        names = [field.name for field in manifest.context]
        context = {name: context[name] for name in names if name in context}
    for name, value in context.items():
        if type(value) is not int:
            raise InteractionError(f"expected an integer as context {name}")
    return check_context(context, manifest)


def import_csv(
    path: Path,
    add: Callable[[Iterable[Interaction]], int],
    *,
    now: float,
    item_column: str = "item",
    time_column: str = "time",
    context_columns: Sequence[str] = (),
    delimiter: str = ",",
    manifest: Manifest | None = None,
) -> ImportReport:
    """Import a CSV file that has a header; broken lines are skipped and reported.

    Each line is read by itself, so that a stray quotation mark costs that line and no other; a
    quoted field cannot go over several lines.

    Args:
        path: the file, UTF-8.
        add: stores interactions and returns how many were new, as ``Store.add_interactions`` does.
        now: unix seconds.
        item_column: header of the column with item ids.
        time_column: header of the column with times.
        context_columns: headers of the columns with ids of context fields, named after the fields;
            an empty cell is not known.
        delimiter: one character.
        manifest: of the task; None when it is not known yet.

    Raises:
        InteractionError: the file cannot be read or lacks a column, or the task has no such
            context field.
    """
    report = ImportReport()
    check_context(dict.fromkeys(context_columns, 0), manifest)
    try:
        with path.open(newline="", encoding="utf-8", errors="replace") as file:
            header = _fields(next(file, ""), delimiter)
            columns = _columns(path, header, item_column, time_column, *context_columns)
            rows = _rows(file, delimiter, columns, report)
            events = _events(rows, context_columns, manifest, now, report)
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


def _rows(
    lines: Iterable[str], delimiter: str, columns: tuple[int, ...], report: ImportReport
) -> Iterator[tuple[int, list[str]]]:
    """The number of each line that is not empty, and its cells in some columns."""
    # The header was line 1.
    for number, line in enumerate(lines, 2):
        try:
            row = _fields(line, delimiter)
        except csv.Error as error:
            report.skip(number, str(error))
            continue
        if len(row) > max(columns):
            yield number, [row[column] for column in columns]
        elif row:
            report.skip(number, f"the line has {len(row)} columns")


def _events(
    rows: Iterable[tuple[int, list[str]]],
    names: Sequence[str],
    manifest: Manifest | None,
    now: float,
    report: ImportReport,
) -> Iterator[Interaction]:
    for number, (item, at, *cells) in rows:
        try:
            pairs = zip(names, cells, strict=True)
            context = {name: _integer(cell, name) for name, cell in pairs if cell.strip()}
            yield Interaction(
                check_item(_integer(item, "item"), manifest),
                parse_time(at, now=now),
                check_context(context, manifest),
            )
        except InteractionError as error:
            report.skip(number, str(error))


def _integer(text: str, name: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise InteractionError("expected an integer", found=f"{name} is {text!r:.60}") from None
