"""Which snapshots are kept. What is removed can be rebuilt by replaying the ledger."""

from dataclasses import dataclass

from aggregator.blobs import Blobs
from aggregator.ledger import Ledger

__all__ = ["Retention", "forget_publications", "prune"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """Which versions keep their snapshot; the others can be rebuilt by replaying the ledger.

    Attributes:
        keep_last: the newest so many. Also, so many publications: a device that has an older one
            gets the newest whole, instead of what changed.
        keep_every: of the older ones, those whose number it divides; 0 keeps none of them.
    """

    keep_last: int = 100
    keep_every: int = 100

    def __post_init__(self) -> None:
        """Refuse values out of range with ValueError."""
        if self.keep_last < 1:
            raise ValueError(f"retention.keep_last is {self.keep_last}; expected 1 or more")
        if self.keep_every < 0:
            raise ValueError(f"retention.keep_every is {self.keep_every}; expected 0 or more")

    def keeps(self, version: int, *, newest: int) -> bool:
        """Whether a version's snapshot stays when ``newest`` is the newest version.

        Version 0 always stays: it is a file of the bundle, and the fold starts from it.
        """
        if version == 0 or version > newest - self.keep_last:
            return True
        return self.keep_every > 0 and version % self.keep_every == 0


def prune(
    ledger: Ledger, blobs: Blobs, retention: Retention, *, task: str, newest: int, first: int = 0
) -> None:
    """Remove the snapshots of the versions from ``first`` on that need not be kept.

    A blob that is also another version to keep, or another task's, stays.

    Args:
        ledger: which blob is which version.
        blobs: where they are.
        retention: which to keep.
        task: 32 hex characters.
        newest: the task's newest version.
        first: versions before this one were pruned earlier.
    """
    # At a start all versions are looked at: then one listing costs less than a question for each.
    here = set(blobs.names()) if first <= 0 else None
    for record in ledger.history(task, last=newest - retention.keep_last, first=max(first, 0)):
        if retention.keeps(record.version, newest=newest):
            continue
        if not (blobs.has(record.sha256) if here is None else record.sha256 in here):
            continue
        users = ledger.versions_of_blob(record.sha256)
        kept = any(t != task or retention.keeps(v, newest=newest) for t, v in users)
        if not kept and not ledger.publications_of_blob(record.sha256):
            blobs.delete(record.sha256)


def forget_publications(ledger: Ledger, blobs: Blobs, retention: Retention, *, task: str) -> None:
    """Forget all but the newest publications of a task, and remove their files.

    Args:
        ledger: which blob is which publication.
        blobs: where they are.
        retention: how many to keep.
        task: 32 hex characters.
    """
    old = ledger.publications(task)[: -retention.keep_last]
    ledger.forget_publications(task, [publication.version for publication in old])
    for publication in old:
        users = ledger.publications_of_blob(publication.sha256)
        if not users and not ledger.versions_of_blob(publication.sha256):
            blobs.delete(publication.sha256)
