"""Which snapshots and publications are kept. The ledger can make every snapshot again."""

from collections.abc import Mapping
from dataclasses import dataclass

from aggregator.blobs import Blobs
from aggregator.ledger import Ledger, Origin, OriginKind

__all__ = ["DAY_S", "Retention", "delete_unused", "forget_publications", "prune", "stand_for"]

DAY_S = 86_400.0
MAX_DAYS = 36_500.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How often a version gets a snapshot, and what is kept how long.

    A snapshot saves the time of replaying: at a start what was merged since the newest one, for an
    older version what lies between.

    Attributes:
        snapshot_every: merged updates from one snapshot to the next.
        keep_snapshots: the newest so many.
        keep_every: of the older ones, one in so many versions; 0 keeps none of them.
        keep_publications: the newest so many. A device that has an older one gets the newest whole,
            instead of what changed.
        keep_payload_days: how many days after its merge an update's payload is kept; 0 for ever.
        warn_days: how many days before payloads go an event says so; they stay that much longer.
    """

    snapshot_every: int = 1_000
    keep_snapshots: int = 3
    keep_every: int = 1_000
    keep_publications: int = 100
    keep_payload_days: float = 0.0
    warn_days: float = 7.0

    def __post_init__(self) -> None:
        """Refuse values out of range with ValueError."""
        for name in ("snapshot_every", "keep_snapshots", "keep_publications"):
            if getattr(self, name) < 1:
                raise ValueError(f"retention.{name} is {getattr(self, name)}; expected 1 or more")
        for name in ("keep_payload_days", "warn_days"):
            if not 0.0 <= getattr(self, name) <= MAX_DAYS:
                raise ValueError(
                    f"retention.{name} is {getattr(self, name)}; expected 0 to {MAX_DAYS:g}"
                )
        if self.keep_every < 0:
            raise ValueError(f"retention.keep_every is {self.keep_every}; expected 0 or more")

    def kept(self, snapshots: list[int]) -> set[int]:
        """Which of these versions keep their snapshot.

        Version 0 always does: it is a file of the bundle, and the fold starts from it.

        Args:
            snapshots: versions that have one, in increasing order.
        """
        kept = {0, *snapshots[-self.keep_snapshots :]}
        if self.keep_every:
            # The first in each stretch.
            kept.update(
                {version // self.keep_every: version for version in snapshots[::-1]}.values()
            )
        return kept


def prune(ledger: Ledger, blobs: Blobs, retention: Retention, *, task: str) -> None:
    """Remove the snapshots of a task that need not be kept.

    A blob that is also something else that is kept stays.

    Args:
        ledger: which blob is which version.
        blobs: where they are.
        retention: which to keep.
        task: 32 hex characters.
    """
    snapshots = ledger.snapshots(task)
    kept = retention.kept([version for version, _ in snapshots])
    dropped_to = ledger.compaction(task).dropped_to
    if dropped_to:
        kept |= stand_for(ledger.origins(task), dropped_to)
    for version, sha256 in snapshots:
        if version not in kept:
            ledger.forget_snapshot(task, version)
            delete_unused(ledger, blobs, sha256)


def stand_for(origins: Mapping[int, Origin], dropped_to: int) -> set[int]:
    """The versions whose snapshots stand for dropped payloads: all later ones go on from these.

    Args:
        origins: those of the task's versions that have one.
        dropped_to: the payloads of merges up to this version are gone.
    """
    found = {dropped_to}
    for version, origin in origins.items():
        if version <= dropped_to:
            continue
        if origin.kind is OriginKind.PROMOTE:
            # Its past without some updates cannot be folded again.
            found.add(version)
        elif origin.of <= dropped_to:
            found.add(origin.of)
    return found


def forget_publications(ledger: Ledger, blobs: Blobs, retention: Retention, *, task: str) -> None:
    """Forget all but the newest publications of a task, and remove their files.

    Args:
        ledger: which blob is which publication.
        blobs: where they are.
        retention: how many to keep.
        task: 32 hex characters.
    """
    old = ledger.publications(task)[: -retention.keep_publications]
    ledger.forget_publications(task, [publication.version for publication in old])
    for publication in old:
        delete_unused(ledger, blobs, publication.sha256)


def delete_unused(ledger: Ledger, blobs: Blobs, sha256: str) -> None:
    """Remove a blob that nothing names."""
    if not ledger.is_used(sha256):
        blobs.delete(sha256)
