"""Payloads of old merges are dropped, if the operator wishes it, and never without a warning.

An update's row stays for ever: who sent what and when, and which merge took it. Its payload, the
delta itself, is needed only to fold the merge again. Once ``retention.keep_payload_days`` have gone
by since the merge it may go: an event says so ``retention.warn_days`` before, with what can be
done until then only. Before the first payload goes, a snapshot stands for all of them.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from aggregator.blobs import Blobs
from aggregator.fold import Fold, FoldError
from aggregator.ledger import CompactionRecord, Event, Ledger, OriginKind, Past
from aggregator.retention import DAY_S, Retention, stand_for
from aggregator.snapshots import encode_snapshot
from wire.manifest import ParameterSpec

__all__ = ["Reach", "compact", "fixed_to", "reach"]

VERSIONS_AT_ONCE = 200

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """What of a task's past can still be made again, and what will be lost next.

    Attributes:
        keep_payload_days: how long payloads are kept after their merge; 0 for ever.
        dropped_to: the payloads of merges up to this version are gone; 0 if none are.
        from_start: the oldest version that can be made again from the bundle alone, and with it all
            after it; None where payloads were dropped.
        from_snapshot: the oldest version from which on every one can be made again or is a
            snapshot; None if no snapshot is left.
        snapshots: older versions than that which still have a snapshot: one can go back to them.
        fixed_to: no update of a merge up to this version can be left out; 0 if all can.
        oldest_update: id of the oldest merged update that can be left out, with all after it; None
            if there is none.
        oldest_update_at: when it was received.
        next_loss_to: the payloads of merges up to this version will go next; None if none will.
        next_loss_at: when, at the earliest.
        next_loss_updates: how many there are.
        kept_because: why nothing is dropped although it should be; None if nothing holds it up.
    """

    keep_payload_days: float
    dropped_to: int
    from_start: int | None
    from_snapshot: int | None
    snapshots: Sequence[int]
    fixed_to: int
    oldest_update: int | None
    oldest_update_at: float | None
    next_loss_to: int | None
    next_loss_at: float | None
    next_loss_updates: int
    kept_because: str | None

    def describe(self) -> str:
        """All of it in one line."""
        if self.from_start is not None:
            past = "Every version can be made again from the start, and every update left out"
        elif self.from_snapshot is None:
            past = f"Payloads up to version {self.dropped_to} are gone, and no snapshot is left"
        else:
            past = (
                f"Versions from {self.from_snapshot} on can be made again, and updates merged "
                f"after version {self.fixed_to} left out"
            )
        if self.kept_because is not None:
            return f"{past}. Payloads are kept: {self.kept_because}."
        if self.next_loss_to is None:
            return f"{past}."
        when = datetime.fromtimestamp(self.next_loss_at or 0.0, UTC)
        return (
            f"{past}. Next the payloads of {self.next_loss_updates} updates go, up to version "
            f"{self.next_loss_to}, not before {when:%Y-%m-%d %H:%M} UTC."
        )


def reach(past: Past, retention: Retention, task: str) -> Reach:
    """What of a task's past can still be made again; reads only.

    Args:
        past: the record.
        retention: what is kept.
        task: 32 hex characters.
    """
    record, newest = past.compaction(task), past.newest_version(task).version
    snapshots = [version for version, _ in past.snapshots(task)]
    dropped_to = record.dropped_to
    after = [version for version in snapshots if version >= dropped_to]
    fixed = fixed_to(past, task)
    oldest = past.oldest_merged(task, after=fixed)
    next_to, next_at = _next_loss(past, record, retention)
    return Reach(
        keep_payload_days=retention.keep_payload_days,
        dropped_to=dropped_to,
        from_start=None if dropped_to else 0,
        from_snapshot=min(after, default=None),
        snapshots=[version for version in snapshots if 0 < version < dropped_to],
        fixed_to=fixed,
        oldest_update=None if oldest is None else oldest[0],
        oldest_update_at=None if oldest is None else oldest[1],
        next_loss_to=next_to,
        next_loss_at=next_at,
        next_loss_updates=0
        if next_to is None
        else past.count_merged(task, first=dropped_to + 1, last=next_to),
        kept_because=_kept_because(past, task, next_to or newest)
        if retention.keep_payload_days
        else None,
    )


def compact(
    ledger: Ledger,
    blobs: Blobs,
    retention: Retention,
    task: str,
    specs: Sequence[ParameterSpec],
    *,
    now: float,
) -> None:
    """Do what is due: warn, make the snapshot that stands for what goes, and drop it.

    Args:
        ledger: the record.
        blobs: where snapshots are.
        retention: what is kept.
        task: 32 hex characters.
        specs: the manifest's federated parameters.
        now: seconds since 1970.

    Raises:
        LedgerUnavailableError: the database refuses; what was done stays done.
        OSError: the snapshot cannot be written; nothing is dropped.
    """
    record = ledger.compaction(task)
    _sweep(ledger, record)
    if not retention.keep_payload_days:
        return
    due = record.warned_to > record.dropped_to
    if due and now >= record.warned_at + retention.warn_days * DAY_S:
        record = _drop(ledger, blobs, retention, record, specs, now=now)
    if record.warned_to <= record.dropped_to:
        _warn(ledger, record, retention, now=now)


def fixed_to(past: Past, task: str) -> int:
    """The newest version such that no update of a merge up to it can be left out any more."""
    dropped_to = past.compaction(task).dropped_to
    if not dropped_to:
        return 0
    # What was promoted since stands on a past that cannot be folded again.
    promoted = [v for v, o in past.origins(task).items() if o.kind is OriginKind.PROMOTE]
    return max([dropped_to, *promoted])


def _next_loss(
    past: Past, record: CompactionRecord, retention: Retention
) -> tuple[int | None, float | None]:
    if not retention.keep_payload_days:
        return None, None
    if record.warned_to > record.dropped_to:
        return record.warned_to, record.warned_at + retention.warn_days * DAY_S
    first = past.version(record.task, record.dropped_to + 1)
    if first is None:
        return None, None
    return first.version, first.created_at + retention.keep_payload_days * DAY_S


def _kept_because(past: Past, task: str, dropped_to: int) -> str | None:
    if past.needs_old_payloads(task, after=dropped_to):
        return "rule ca2fl goes on from the last delta of every device, however old it is"
    return None


def _warn(ledger: Ledger, record: CompactionRecord, retention: Retention, *, now: float) -> None:
    """Say what will go once the days of warning are over; with none of them, it goes next time."""
    last = ledger.newest_before(
        record.task, now + (retention.warn_days - retention.keep_payload_days) * DAY_S
    )
    if last <= record.dropped_to or _kept_because(ledger, record.task, last):
        return
    updates = ledger.count_merged(record.task, first=record.dropped_to + 1, last=last)
    detail = (
        f"in {retention.warn_days:g} days the payloads of {updates} updates will be dropped, of "
        f"merges up to version {last}; until then they can be left out by refold, and these "
        "versions made again by verify"
    )
    event = Event(at=now, kind="payloads-expire", task=record.task, detail=detail)
    ledger.set_compaction(replace(record, warned_to=last, warned_at=now), event)


def _drop(
    ledger: Ledger,
    blobs: Blobs,
    retention: Retention,
    record: CompactionRecord,
    specs: Sequence[ParameterSpec],
    *,
    now: float,
) -> CompactionRecord:
    task, last = record.task, record.warned_to
    expired = ledger.newest_before(task, now - retention.keep_payload_days * DAY_S)
    if last > expired or _kept_because(ledger, task, last):
        # A setting or the rule was changed since the warning; there will be another one.
        return _given_up(ledger, record)
    try:
        for version in sorted(stand_for(ledger.origins(task), last)):
            _have_snapshot(ledger, blobs, task, specs, version)
    except FoldError as error:
        _log.error("no payload of task %s is dropped: %s", task, error)
        return record
    updates = ledger.count_merged(task, first=record.dropped_to + 1, last=last)
    detail = f"the payloads of {updates} updates are gone, of merges up to version {last}"
    event = Event(at=now, kind="payloads-dropped", task=task, detail=detail)
    dropped = replace(record, dropped_to=last)
    ledger.set_compaction(dropped, event)
    _sweep(ledger, dropped)
    return replace(dropped, swept_to=last)


def _given_up(ledger: Ledger, record: CompactionRecord) -> CompactionRecord:
    given_up = replace(record, warned_to=record.dropped_to)
    ledger.set_compaction(given_up, None)
    return given_up


def _have_snapshot(
    ledger: Ledger, blobs: Blobs, task: str, specs: Sequence[ParameterSpec], version: int
) -> None:
    record = ledger.version(task, version)
    if record is not None and record.sha256 is not None and blobs.intact(record.sha256):
        return
    folded = Fold(ledger, task, specs).rebuild(blobs, version)
    snapshot = encode_snapshot(folded.state)
    ledger.add_snapshot(task, version, blobs.put(snapshot), len(snapshot))


def _sweep(ledger: Ledger, record: CompactionRecord) -> None:
    """Drop what was declared gone, a portion at a time, also after a death in between."""
    swept_to = record.swept_to
    while swept_to < record.dropped_to:
        portion = min(swept_to + VERSIONS_AT_ONCE, record.dropped_to)
        ledger.drop_payloads(record.task, first=swept_to + 1, last=portion)
        swept_to = portion
