"""Quality of a simulated fleet, as a whole and in parts."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from device_sims.datasets import Split
from device_sims.datasets.interactions import IntArray
from device_sims.examiner import Examiner
from device_sims.nature import Nature
from device_sims.protocol import Quality, Ranks
from device_sims.simulation.outcome import Group
from device_sims.simulation.replay import Replay
from wire.bundle import Bundle
from wire.delta import FloatArray
from wire.parameters import Table

__all__ = ["Assessor", "groups", "thirds"]

Private = Callable[[int], Mapping[str, FloatArray]]


class Assessor:
    """Ranks what the users of the devices do next.

    Args:
        bundle: the task.
        split: the data.
        replay: says when what happens; None where all of it is there from the start.
        private: a device's private parameters by its number.
        users: int64, ascending: whose quality is measured; None for all.
    """

    def __init__(
        self,
        bundle: Bundle,
        split: Split,
        replay: Replay | None,
        private: Private,
        users: IntArray | None,
    ) -> None:
        self._examiner, self._users = Examiner(bundle, split), users
        self._replay, self._private = replay, private

    def rank(self, federated: Mapping[str, Table], now_s: float) -> Ranks:
        """Where a version ranks the next items.

        Args:
            federated: its parameters.
            now_s: seconds since the run began.
        """
        if self._replay is None:
            return self._examiner.rank(federated, self._private, "test", users=self._users)
        split, users = self._replay.split_at(now_s)
        if self._users is not None:
            users = np.intersect1d(users, self._users, assume_unique=True)
        return self._examiner.rank(federated, self._private, "test", split=split, users=users)

    def validation(self, federated: Mapping[str, Table]) -> Quality | None:
        """The quality on the validation items; None with replay."""
        if self._replay is not None:
            return None
        return self._examiner.rank(
            federated, self._private, "validation", users=self._users
        ).quality()

    def exposure(self, federated: Mapping[str, Table], item: int) -> float:
        """To which share of the users a version shows an item."""
        return self._examiner.exposure(federated, self._private, item)


def groups(
    natures: Sequence[Nature], updates: Mapping[int, int], ranks: Ranks | None
) -> dict[str, Group]:
    """Quality and part of each group; see ``Outcome.groups``.

    Args:
        natures: of all devices.
        updates: made by device number.
        ranks: of the newest version; None if there is none.
    """
    parts = thirds(natures)
    kinds = sorted({nature.kind for nature in natures})
    if len(kinds) > 1:
        of_kind = np.array([kinds.index(nature.kind) for nature in natures])
        parts |= {kind: np.flatnonzero(of_kind == at) for at, kind in enumerate(kinds)}
    return {name: _group(devices, updates, ranks) for name, devices in parts.items()}


def thirds(natures: Sequence[Nature]) -> dict[str, IntArray]:
    """Device numbers, ascending, by how long a local update takes them."""
    order = np.argsort([nature.conditions.update_s for nature in natures], kind="stable")
    parts = np.array_split(order, 3)
    return dict(zip(("fast", "middle", "slow"), map(np.sort, parts), strict=True))


def _group(devices: IntArray, updates: Mapping[int, int], ranks: Ranks | None) -> Group:
    quality = ranks.of(devices).quality() if ranks else None
    return Group(
        devices=len(devices),
        updates=sum(updates.get(device, 0) for device in devices.tolist()),
        hr_at_10=quality.hr_at_10 if quality else 0.0,
        ndcg_at_10=quality.ndcg_at_10 if quality else 0.0,
    )
