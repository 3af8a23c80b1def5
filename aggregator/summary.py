"""A task in one document: what the dashboard shows.

Everything in it is read from running totals, so its cost does not grow with the ledger.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from aggregator.ledger import Reports, Tally, TaskRecord
from aggregator.ledger.intake import NO_TASK
from wire.manifest import Manifest
from wire.messages import Refusal

__all__ = ["summarise"]

ACTIVE_S = 60.0
QUALITY_BINS = 200
THROUGHPUT_S = 120
RATE_S = 10


def summarise(reports: Reports, task: TaskRecord, *, now: float) -> dict[str, Any]:
    """The numbers of one task.

    Refusals of messages that name no task of this service are counted with every task: whoever
    watches one wants to see them. ``bytes.received`` are the accepted messages, envelopes included;
    ``bytes.dense_equivalent`` is what as many updates would take as plain float32 tables;
    ``bytes.saved_ratio`` is the share that was saved, 0 to 1. ``updates.per_second`` is the mean of
    the last ten whole seconds, and a device is active for a minute after it sent something.

    Args:
        reports: where the totals are.
        task: which task.
        now: seconds since 1970.
    """
    manifest = Manifest.from_json(task.manifest)
    tallies = reports.tallies(task.task)
    totals = {kind: _by_key(tallies, kind) for kind in {tally.kind for tally in tallies}}
    accepted, received = _total(totals, "accepted"), _total(totals, "bytes")
    refusals = Counter(_by_key(tallies, "refusal"))
    refusals.update(_by_key(reports.tallies(NO_TASK), "refusal"))
    seconds = totals.get("second", {})
    dense = accepted * manifest.dense_bytes
    devices = reports.device_counts(task.task, active_since=now - ACTIVE_S)
    return {
        "task": task.task,
        "name": manifest.name,
        "version": reports.newest_version(task.task),
        "paused": task.paused,
        "started_at": task.created_at,
        "now": now,
        "devices": {
            "known": devices.known,
            "online": devices.online,
            "active": devices.active,
        },
        "updates": {
            "accepted": accepted,
            "duplicate": _total(totals, "duplicate"),
            "rejected": refusals.total(),
            "pending": reports.pending(task.task),
            "per_second": sum(seconds.get(int(now) - age, 0) for age in range(1, RATE_S + 1))
            / RATE_S,
        },
        "bytes": {
            "received": received,
            "dense_equivalent": dense,
            "saved_ratio": 1.0 - received / dense if dense else 0.0,
        },
        "refusals": {Refusal(reason).slug: count for reason, count in refusals.items()},
        "staleness": sorted(totals.get("staleness", {}).items()),
        "quality": reports.quality(task.task, bins=QUALITY_BINS),
        "throughput": [
            [second, seconds.get(second, 0)] for second in range(int(now) - THROUGHPUT_S, int(now))
        ],
    }


def _by_key(tallies: Sequence[Tally], kind: str) -> dict[int, int]:
    return {tally.key: tally.value for tally in tallies if tally.kind == kind}


def _total(totals: dict[str, dict[int, int]], kind: str) -> int:
    return sum(totals.get(kind, {}).values())
