"""Quality of a simulated fleet, as a whole and in parts."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from device_sims.datasets import Split
from device_sims.datasets.interactions import IntArray
from device_sims.examiner import Examiner
from device_sims.nature import Nature
from device_sims.protocol import Quality, Ranks
from device_sims.scenario import Run
from device_sims.simulation.meter import Meter
from device_sims.simulation.outcome import Group, Measured
from device_sims.simulation.replay import Replay
from wire.bundle import Bundle
from wire.delta import FloatArray
from wire.parameters import Table

__all__ = ["Assessor", "examined", "groups"]

STREAM = 11
"""Sets the draw of whose quality is measured apart from all others of a run."""

SPEEDS = ("fast", "middle", "slow")
"""By how long a local update takes."""
ACTIVITIES = ("light", "medium", "heavy")
"""By how many interactions the user has."""

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

    def measure(
        self,
        federated: Mapping[str, Table],
        *,
        now_s: float,
        version: int,
        updates: int,
        meter: Meter,
    ) -> Measured:
        """The quality at a moment, beside what it took.

        Args:
            federated: the parameters of the newest version; empty while there are none.
            now_s: seconds since the run began.
            version: their number, -1 while there are none.
            updates: made so far.
            meter: what the fleet spent so far.
        """
        ranks = self.rank(federated, now_s) if federated else None
        validation = self.validation(federated) if federated else None
        test = ranks.quality() if ranks else None
        return Measured(
            hours=now_s / 3600.0,
            version=version,
            updates=updates,
            bytes_up=meter.bytes_up,
            bytes_down=meter.bytes_down,
            energy_j=meter.energy_j,
            examined=len(ranks.users) if ranks else 0,
            hr_at_10=test.hr_at_10 if test else 0.0,
            ndcg_at_10=test.ndcg_at_10 if test else 0.0,
            validation_ndcg_at_10=validation.ndcg_at_10 if validation else None,
        )

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


def examined(run: Run, users: int) -> IntArray | None:
    """Whose quality is measured: int64, ascending; None for all.

    Args:
        run: says how many.
        users: how many there are.
    """
    if not 0 < run.evaluate_users < users:
        return None
    rng = np.random.default_rng([run.seed, STREAM])
    return np.sort(rng.choice(users, run.evaluate_users, replace=False))


def groups(
    natures: Sequence[Nature], histories: IntArray, updates: Mapping[int, int], ranks: Ranks | None
) -> dict[str, Group]:
    """Quality and part of each group; see ``Outcome.groups``.

    Args:
        natures: of all devices.
        histories: int64 [devices], how many interactions each has to train on.
        updates: made by device number.
        ranks: of the newest version; None if there is none.
    """
    parts = _thirds([nature.conditions.update_s for nature in natures], SPEEDS)
    parts |= _thirds(histories, ACTIVITIES)
    kinds = sorted({nature.kind for nature in natures})
    if len(kinds) > 1:
        of_kind = np.array([kinds.index(nature.kind) for nature in natures])
        named = [f"{kind} (class)" if kind in parts else kind for kind in kinds]
        parts |= {name: np.flatnonzero(of_kind == at) for at, name in enumerate(named)}
    return {name: _group(devices, updates, ranks) for name, devices in parts.items()}


def _thirds(values: Sequence[float] | IntArray, names: tuple[str, str, str]) -> dict[str, IntArray]:
    """Device numbers, ascending, of the smallest third of some values, one each, and so on."""
    parts = np.array_split(np.argsort(values, kind="stable"), 3)
    return dict(zip(names, map(np.sort, parts), strict=True))


def _group(devices: IntArray, updates: Mapping[int, int], ranks: Ranks | None) -> Group:
    quality = ranks.of(devices).quality() if ranks else None
    return Group(
        devices=len(devices),
        updates=sum(updates.get(device, 0) for device in devices.tolist()),
        hr_at_10=quality.hr_at_10 if quality else 0.0,
        ndcg_at_10=quality.ndcg_at_10 if quality else 0.0,
    )
