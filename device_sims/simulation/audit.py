"""What must be true after any run, whatever went wrong in it."""

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np

from aggregator.blobs import Blobs
from aggregator.fold import Fold, FoldError
from aggregator.ledger import Ledger, UpdateKey
from device_sims.fleet import device_name
from wire.bundle import Bundle
from wire.delta import FloatArray
from wire.messages import Outcome

__all__ = ["Accepted", "Audit", "PrivacyWatch"]

PATTERN_VALUES = 2
"""So many private float32 in a row in a message are no coincidence."""
KEYS_AT_ONCE = 1_000


class Accepted:
    """The updates of which a device was told that they are in the ledger: 16 bytes for each.

    Args:
        task: of all of them.
    """

    def __init__(self, task: str) -> None:
        self._task, self._told = task, array("q")

    def add(self, number: int, sequence: int) -> None:
        """The device of a number was told so of one of its updates; it may hear it again."""
        self._told.extend((number, sequence))

    def __iter__(self) -> Iterator[UpdateKey]:
        """Each of them once."""
        told = np.unique(np.array(self._told).reshape(-1, 2), axis=0)
        return (UpdateKey(self._task, device_name(int(n)), int(sequence)) for n, sequence in told)


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
        lost: updates that a device knows to be accepted and that the ledger does not have as such.
        unanswered: devices with updates that still wait for a receipt at the end, or that are down.
        twice: updates that are in the ledger, or in a version, more than once.
        unmerged: by how much what a version says that it took differs from what the ledger says
            that it took, of all versions.
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
        ledger: Ledger,
        blobs: Blobs,
        bundle: Bundle,
        *,
        created: int,
        accepted: Iterable[UpdateKey],
        unanswered: int,
        leaks: int,
        mass: int,
    ) -> "Audit":
        """Look at everything.

        Args:
            ledger: the aggregator's.
            blobs: beside it.
            bundle: the task.
            created: how many updates devices made.
            accepted: those of which a device was told that they are in the ledger, each once.
            unanswered: devices that are down or have updates in their outbox.
            leaks: as counted.
            mass: as counted.
        """
        task = bundle.task
        newest = ledger.newest_version(task)
        taken, unmerged = array("q"), 0
        for version in ledger.between(task, 0, newest.version):
            members = [member.id for member in ledger.members(task, version.version)]
            unmerged += abs(version.updates - len(members))
            taken.extend(members)
        waiting = [member.id for member in ledger.members(task, None)]
        merged, counts = np.unique(np.array(taken), return_counts=True)
        return cls(
            created=created,
            accepted=len(merged) + len(waiting),
            lost=sum(_unknown(ledger, keys) for keys in _portions(accepted)),
            unanswered=unanswered,
            twice=int((counts - 1).sum() + np.isin(waiting, merged).sum()),
            unmerged=unmerged,
            not_the_fold=int(not _is_fold(ledger, blobs, bundle, newest.version, newest.digest)),
            leaks=leaks,
            mass=mass,
        )


def _portions(keys: Iterable[UpdateKey]) -> Iterator[list[UpdateKey]]:
    left = iter(keys)
    while portion := list(islice(left, KEYS_AT_ONCE)):
        yield portion


def _unknown(ledger: Ledger, keys: list[UpdateKey]) -> int:
    decided = ledger.decisions(keys).values()
    return len(keys) - sum(decision.outcome is Outcome.ACCEPTED for decision in decided)


def _is_fold(ledger: Ledger, blobs: Blobs, bundle: Bundle, version: int, digest: str) -> bool:
    fold = Fold(ledger, bundle.task, bundle.manifest.federated)
    try:
        folded = fold.rebuild(blobs, version, trusted={0})
    except FoldError:
        return False
    return folded.digest == digest
