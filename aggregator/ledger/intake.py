"""One group commit: what a batch of messages adds to the ledger, and the totals that follow."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aggregator.ledger.records import DeviceStatus, Event, NewUpdate, Rejection, UpdateKey
from wire.messages import Refusal

__all__ = ["NO_TASK", "Intake", "participant_rows", "quality_rows", "tally_rows"]

NO_TASK = ""
"""The task under which refusals are counted whose task is not known here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Intake:
    """What one batch of messages comes to.

    Attributes:
        updates: good updates, with distinct keys, none of them decided before.
        rejections: refused ones, likewise; those of an unknown task may have been refused before.
        momentary: refused for now; nothing is decided, and only a count is left.
        duplicates: keys that were decided before, once for each further delivery.
        unreadable: refusals of messages that name no update, so that only a count is left.
        statuses: what devices said of themselves.
        events: for the operator.
        norms: by task and bucket, what the histogram of accepted norms changes by.
        known_tasks: tasks that exist; refusals for others are counted under ``NO_TASK``.
        at: when.
    """

    at: float
    known_tasks: frozenset[str]
    updates: Sequence[NewUpdate] = ()
    rejections: Sequence[Rejection] = ()
    momentary: Sequence[Rejection] = ()
    duplicates: Sequence[UpdateKey] = ()
    norms: Mapping[str, Mapping[int, int]] = field(default_factory=dict)
    unreadable: Mapping[Refusal, int] | None = None
    statuses: Sequence[DeviceStatus] = ()
    events: Sequence[Event] = ()


def tally_rows(intake: Intake) -> list[dict[str, Any]]:
    """Increments of ``tallies``: accepted, by second, bytes, norms, duplicates, refusals."""
    tally: Counter[tuple[str, str, int]] = Counter()
    for update in intake.updates:
        task = update.key.task
        tally[task, "accepted", 0] += 1
        tally[task, "second", int(update.received_at)] += 1
        tally[task, "bytes", 0] += update.size_bytes
    for key in intake.duplicates:
        tally[_counted_under(key.task, intake), "duplicate", 0] += 1
    for task, changes in intake.norms.items():
        for bucket, change in changes.items():
            tally[task, "norm", bucket] += change
    for rejection in (*intake.rejections, *intake.momentary):
        tally[_counted_under(rejection.key.task, intake), "refusal", int(rejection.reason)] += 1
    for reason, count in (intake.unreadable or {}).items():
        tally[NO_TASK, "refusal", int(reason)] += count
    return [
        {"task": task, "kind": kind, "key": key, "value": value}
        for (task, kind, key), value in sorted(tally.items())
    ]


def participant_rows(intake: Intake) -> list[dict[str, Any]]:
    """Increments of ``participants``, one row for each known task and device of the batch.

    A device that is not enrolled gets none: there is no end to their names.
    """
    rows: dict[tuple[str, str], dict[str, Any]] = {}

    def row(key: UpdateKey) -> dict[str, Any]:
        found = rows.setdefault(
            (key.task, key.device),
            {
                "task": key.task,
                "device": key.device,
                "last_sequence": 0,
                "last_version": -1,
                "last_seen": intake.at,
                "accepted": 0,
                "rejected": 0,
                "duplicate": 0,
                "bytes": 0,
            },
        )
        found["last_sequence"] = max(found["last_sequence"], key.sequence)
        return found

    for update in intake.updates:
        accepted = row(update.key)
        accepted["accepted"] += 1
        accepted["bytes"] += update.size_bytes
        accepted["last_version"] = max(accepted["last_version"], update.base_version)
    for rejection in (*intake.rejections, *intake.momentary):
        enrolled = rejection.reason is not Refusal.UNKNOWN_DEVICE
        if enrolled and rejection.key.task in intake.known_tasks:
            row(rejection.key)["rejected"] += 1
    for key in intake.duplicates:
        row(key)["duplicate"] += 1
    return [rows[name] for name in sorted(rows)]


def quality_rows(intake: Intake) -> list[dict[str, Any]]:
    """Increments of ``quality``: reports and their sum, by base version and metric."""
    sums: dict[tuple[str, int, str], list[float]] = {}
    for update in intake.updates:
        for metric, value in update.metrics.items():
            sums.setdefault((update.key.task, update.base_version, metric), []).append(value)
    return [
        {
            "task": task,
            "version": version,
            "metric": metric,
            "reports": len(values),
            "total": float(sum(values)),
        }
        for (task, version, metric), values in sorted(sums.items())
    ]


def _counted_under(task: str, intake: Intake) -> str:
    return task if task in intake.known_tasks else NO_TASK
