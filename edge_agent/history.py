"""The device's history as training and scoring see it: arrays of ids, checked against the task."""

import logging
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wire.manifest import BatchKind, Manifest

__all__ = ["UNKNOWN", "History", "IntArray"]

logger = logging.getLogger(__name__)

UNKNOWN = 0
"""The id of a context field where nothing is known: a task leaves it free for that."""

IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class History:
    """Interactions, oldest first; ties in time keep the order of arrival.

    Attributes:
        items: int64 [n] item ids.
        context: int64 [n, C] ids of the task's context fields in the manifest's order;
            ``UNKNOWN`` where the interaction has none.
    """

    items: IntArray
    context: IntArray

    def __len__(self) -> int:
        return len(self.items)

    def where(self, mask: NDArray[np.bool_]) -> "History":
        """The interactions for which a mask, bool [n], is true."""
        return History(self.items[mask], self.context[mask])

    def recent(self, length: int) -> IntArray:
        """Items of the newest interactions, at most ``length`` of them, oldest first."""
        return self.items[max(0, len(self) - length) :]

    def before_latest(self, manifest: Manifest) -> "History":
        """What came before the latest interaction, which a device holds out.

        All other interactions with its item are left out, too: to train on one, or to score with
        it, would show the answer. But in a sequence what was done before may well be what is done
        next, so there they stay.
        """
        if manifest.batch is BatchKind.SEQUENCE:
            return self.where(np.arange(len(self)) < len(self) - 1)
        return self.where(self.items != self.items[-1:])

    def known_to(self, manifest: Manifest) -> "History":
        """What a task can use of it, with a warning if that is not all.

        Interactions with items outside the catalogue are left out; context ids outside their
        field's size become ``UNKNOWN``.
        """
        known = (self.items >= 0) & (self.items < manifest.items)
        if not known.all():
            logger.warning("%d interactions are outside the catalogue", np.sum(~known))
        sizes = np.array([field.size for field in manifest.context], np.int64)
        strange = (self.context < 0) | (self.context >= sizes)
        if strange.any():
            names = [field.name for field in manifest.context]
            found = ", ".join(np.array(names)[strange.any(axis=0)])
            logger.warning(
                "%d context ids are outside their field's size (%s) and count as unknown",
                np.sum(strange),
                found,
            )
        return History(self.items, np.where(strange, UNKNOWN, self.context)).where(known)
