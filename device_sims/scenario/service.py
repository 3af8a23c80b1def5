"""The table [service]: how the aggregator takes in, announces and keeps."""

from dataclasses import dataclass

from aggregator.retention import Retention
from device_sims.scenario.table import MAX_S, Checks, read_table

__all__ = ["Service", "read_service"]

MOST = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """How the aggregator works; a fleet of 100,000 wants other numbers than one of 100.

    Attributes:
        together_s: what arrives within so many seconds is taken in as one batch.
        announce_interval_s: shortest time between two announcements; a version is published when
            it is announced.
        snapshot_every: merged updates from one snapshot to the next.
        keep_snapshots: the newest so many.
        keep_every: of the older ones, one in so many versions; 0 keeps none of them.
        keep_publications: the newest so many; a device that has an older one cannot get by with
            what changed.
    """

    together_s: float = 0.05
    announce_interval_s: float = 1.0
    snapshot_every: int = 1_000
    keep_snapshots: int = 3
    keep_every: int = 1_000
    keep_publications: int = 100

    @property
    def retention(self) -> Retention:
        """What is kept how long; payloads for ever, for the audit folds them all again."""
        return Retention(
            snapshot_every=self.snapshot_every,
            keep_snapshots=self.keep_snapshots,
            keep_every=self.keep_every,
            keep_publications=self.keep_publications,
        )


def read_service(given: object) -> Service:
    """Read the table.

    Raises:
        ScenarioError: names the key, the value and what was expected.
    """
    service = read_table(Service, given, "service")
    checks = Checks(service, "service")
    checks.numbers(("together_s", "announce_interval_s"), 0.0, MAX_S)
    for name in ("snapshot_every", "keep_snapshots", "keep_publications"):
        checks.integer(name, 1, MOST)
    checks.integer("keep_every", 0, MOST)
    return service
