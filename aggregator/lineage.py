"""Versions that no merge makes: back to an older one, or on from a lineage.

Both only add a version. The counter grows, what was is kept, devices are told of one more version,
and updates that are under way are merged onto it: their staleness counts versions as ever, whatever
became of the version that they began from.
"""

from aggregator.blobs import Blobs
from aggregator.fold import Fold, FoldError
from aggregator.ledger import Event, Exclusion, Ledger, LineageRecord, Origin, OriginKind
from aggregator.refolding import catch_up
from aggregator.task import Task

__all__ = ["promote", "roll_back"]


def roll_back(task: Task, version: int, *, ledger: Ledger, blobs: Blobs, at: float) -> int:
    """Make the next version with the parameters and the memory of an older one.

    Args:
        task: moves on.
        version: the older one.
        ledger: where the new one is recorded.
        blobs: where its snapshot goes.
        at: seconds since 1970.

    Returns:
        The number of the new version; of the newest, if that was made by the same wish.

    Raises:
        FoldError: no such version, or it cannot be rebuilt any more.
        LedgerUnavailableError: the database refuses; nothing changes.
        OSError: the snapshot cannot be written; nothing changes.
    """
    made = task.origin
    if made is not None and (made.kind, made.of) == (OriginKind.ROLLBACK, version):
        return task.version
    if not 0 <= version < task.version:
        raise FoldError(
            f"version {version} is not an older one; give one from 0 to {task.version - 1}"
        )
    folded = Fold(ledger, task.name, task.specs).rebuild(blobs, version)
    origin = Origin(kind=OriginKind.ROLLBACK, of=version, before=task.newest.digest)
    detail = f"version {task.version + 1} has the parameters of version {version}"
    event = Event(at=at, kind="rolled-back", task=task.name, detail=detail)
    task.go_on_from(folded, origin, ledger, blobs, event=event)
    return task.version


def promote(task: Task, lineage: LineageRecord, *, ledger: Ledger, blobs: Blobs, at: float) -> int:
    """Make a lineage, with the merges since it was folded, the next version.

    Waiting updates that it leaves out are never merged.

    Args:
        task: moves on.
        lineage: one of the task.
        ledger: where the new version is recorded.
        blobs: where its snapshot goes.
        at: seconds since 1970.

    Returns:
        The number of the new version; of the newest, if that was made by the same wish.

    Raises:
        FoldError: the lineage's snapshot is gone, or the task went another way since.
        LedgerUnavailableError: the database refuses; nothing changes.
        OSError: the snapshot cannot be written; nothing changes.
    """
    if task.origin is not None and task.origin.lineage == lineage.id:
        return task.version
    without = Exclusion.from_dict(lineage.excluded)
    folded = catch_up(ledger, blobs, task.specs, lineage, task.version)
    origin = Origin(
        kind=OriginKind.PROMOTE,
        of=task.version,
        before=task.newest.digest,
        without=without,
        lineage=lineage.id,
    )
    detail = f"version {task.version + 1} is lineage {lineage.id}, {without.describe()} left out"
    event = Event(at=at, kind="promoted", task=task.name, detail=detail[:1000])
    waiting = ledger.waiting_among(task.name, without)
    task.go_on_from(folded, origin, ledger, blobs, event=event, left_out=waiting)
    return task.version
