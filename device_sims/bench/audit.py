"""What a ledger says after a run, against what was sent, and whether its model is its fold."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import select

from aggregator.blobs import Blobs
from aggregator.fold import Fold, FoldError
from aggregator.ledger import Ledger, open_database
from aggregator.ledger.schema import updates, versions
from wire.bundle import Bundle

__all__ = ["Audit", "audit"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """What was found.

    Attributes:
        accepted: updates in the ledger.
        lost: updates that a device sent, and was answered, and the ledger lacks.
        doubled: updates that stand in the ledger, or in the merges, more than once.
        versions: how many merges there were.
        replayed: how many updates were folded again.
        model_is_the_fold: whether the replay from version 0 has the digest that was recorded with
            the newest version, so every bit of it.
    """

    accepted: int
    lost: int
    doubled: int
    versions: int
    replayed: int
    model_is_the_fold: bool


def audit(database: str, blobs: Blobs, bundle: Bundle, sent: Mapping[str, int]) -> Audit:
    """Count, delete the snapshots, and fold again. Nobody else may use the ledger meanwhile.

    Args:
        database: URL of the ledger.
        blobs: where the snapshots are.
        bundle: of the task.
        sent: for each device, how many updates it made: numbers 1 to this.
    """
    engine = open_database(database)
    with engine.connect() as connection:
        rows = connection.execute(
            select(updates.c.device, updates.c.sequence, updates.c.merged_in)
        ).all()
        counts = connection.execute(select(versions.c.version, versions.c.updates)).all()
    names = {(row.device, row.sequence) for row in rows}
    owed = {(device, n) for device, count in sent.items() for n in range(1, count + 1)}
    merged = Counter(row.merged_in for row in rows if row.merged_in is not None)
    replayed = _replay(Ledger(engine), blobs, bundle)
    engine.dispose()
    return Audit(
        accepted=len(rows),
        lost=len(owed - names),
        doubled=len(rows)
        - len(names)
        + len(names - owed)
        + sum(abs(merged[version] - count) for version, count in counts),
        versions=len(counts) - 1,
        replayed=replayed or 0,
        model_is_the_fold=replayed == merged.total(),
    )


def _replay(ledger: Ledger, blobs: Blobs, bundle: Bundle) -> int | None:
    """Updates that were folded from version 0 on; None where not that came out which was."""
    fold = Fold(ledger, bundle.task, bundle.manifest.federated)
    newest = ledger.newest_version(bundle.task)
    for version, sha256 in ledger.snapshots(bundle.task):
        if version:
            blobs.delete(sha256)
    try:
        folded = fold.rebuild(blobs, newest.version)
    except FoldError:
        return None
    return folded.replayed if folded.digest == newest.digest else None
