"""What must be true after any run, whatever went wrong in it."""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from aggregator.fold import Fold, FoldError
from aggregator.ledger import UpdateKey
from device_sims.simulation.server import Server
from wire.bundle import Bundle
from wire.delta import FloatArray

__all__ = ["Audit", "PrivacyWatch"]

PATTERN_VALUES = 2
"""So many private float32 in a row in a message are no coincidence."""


class PrivacyWatch:
    """Looks for private parameters in everything that devices send."""

    def __init__(self) -> None:
        self.leaks = 0

    def look(self, payload: bytes, private: Iterable[FloatArray]) -> None:
        """Count it if a message holds consecutive values of a private parameter, as they are."""
        for values in private:
            raw = np.ascontiguousarray(values, "<f4").tobytes()
            size = 4 * PATTERN_VALUES
            patterns = (raw[at : at + size] for at in range(0, len(raw) - size + 1, size))
            self.leaks += any(any(p) and p in payload for p in patterns)


@dataclass(frozen=True, slots=True)
class Audit:
    """Counts that must be zero, but for the first two.

    Attributes:
        created: updates that devices put into their outbox.
        accepted: updates in the ledger.
        lost: updates that a device knows to be accepted and that the ledger does not have.
        unanswered: updates that still wait for a receipt at the end.
        twice: updates that are in the ledger, or in a version, more than once.
        unmerged: what the versions say that they took, less what the ledger says was taken.
        not_the_fold: 1 if the model is not what the ledger makes of the bundle alone.
        leaks: messages with private parameters in them.
        mass: updates of honest devices after which something that was learned is nowhere, or twice;
            see ``mass``.
    """

    created: int
    accepted: int
    lost: int
    unanswered: int
    twice: int
    unmerged: int
    not_the_fold: int
    leaks: int
    mass: int

    @property
    def broken(self) -> list[str]:
        """Names of the invariants that do not hold."""
        names = ("lost", "unanswered", "twice", "unmerged", "not_the_fold", "leaks", "mass")
        return [name for name in names if getattr(self, name)]

    @classmethod
    def of(
        cls,
        server: Server,
        bundle: Bundle,
        *,
        created: Sequence[UpdateKey],
        accepted: Collection[UpdateKey],
        unanswered: int,
        leaks: int,
        mass: int,
    ) -> "Audit":
        """Look at everything.

        Args:
            server: its ledger.
            bundle: the task.
            created: updates that devices made.
            accepted: those of which a device was told that they are in the ledger.
            unanswered: updates in outboxes.
            leaks: as counted.
            mass: as counted.
        """
        ledger, task = server.ledger, bundle.task
        newest = ledger.newest_version(task)
        versions = list(ledger.between(task, 0, newest.version))
        taken = Counter(
            member.id for version in versions for member in ledger.members(task, version.version)
        )
        waiting = [member.id for member in ledger.members(task, None)]
        known = ledger.decisions(list(accepted))
        return cls(
            created=len(created),
            accepted=len(taken) + len(waiting),
            lost=len(set(accepted) - set(known)),
            unanswered=unanswered,
            twice=sum(count - 1 for count in taken.values()) + len(set(waiting) & set(taken)),
            unmerged=abs(sum(version.updates for version in versions) - len(taken)),
            not_the_fold=int(not _is_fold(server, bundle, newest.version, newest.digest)),
            leaks=leaks,
            mass=mass,
        )


def _is_fold(server: Server, bundle: Bundle, version: int, digest: str) -> bool:
    fold = Fold(server.ledger, bundle.task, bundle.manifest.federated)
    try:
        folded = fold.rebuild(server.blobs, version, trusted={0})
    except FoldError:
        return False
    return folded.digest == digest
