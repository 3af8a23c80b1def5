"""What the codec left out, in memory: the same law as on a device's disk, in three arrays."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_agent.residuals import PRUNED_EVERY, as_rows, tensor_of
from wire.delta import Delta, FloatArray, RowBlock, Tensor
from wire.manifest import ParameterSpec
from wire.policy import CodecPolicy

__all__ = ["MemoryResiduals"]


class _Rows(NamedTuple):
    """Rows of one tensor; no array is ever changed.

    Attributes:
        ids: int64 [n], increasing.
        values: float32 [n, width].
        seen: int64 [n], how many updates the device had made when each was left out.
    """

    ids: NDArray[np.int64]
    values: FloatArray
    seen: NDArray[np.int64]

    def where(self, mask: NDArray[np.bool_]) -> "_Rows":
        return _Rows(self.ids[mask], self.values[mask], self.seen[mask])

    def among(self, ids: NDArray[np.int64]) -> "_Rows":
        return self.where(_found(self.ids, ids))

    def without(self, ids: NDArray[np.int64]) -> "_Rows":
        return self.where(~_found(self.ids, ids))


class MemoryResiduals:
    """As ``edge_agent.residuals.Residuals``, without a database."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str], _Rows] = {}

    def copy(self) -> "MemoryResiduals":
        """Another one with the same rows."""
        copied = MemoryResiduals()
        copied._kept = dict(self._kept)
        return copied

    def read(self, task: str, specs: Sequence[ParameterSpec]) -> dict[str, Tensor]:
        """All of it, as it was left out."""
        kept = ((spec, self._kept.get((task, spec.name))) for spec in specs)
        return {spec.name: tensor_of(spec, *rows) for spec, rows in kept if rows is not None}

    def read_touched(
        self,
        task: str,
        specs: Sequence[ParameterSpec],
        touched: Delta,
        *,
        updates: int,
        policy: CodecPolicy | None,
    ) -> dict[str, Tensor]:
        """The rows that a delta touches, aged; see ``Residuals.read_touched``."""
        found: dict[str, Tensor] = {}
        for spec in specs:
            rows = self._kept.get((task, spec.name))
            if rows is None or spec.name not in touched:
                continue
            tensor = touched[spec.name]
            if isinstance(tensor, RowBlock):
                rows = rows.among(tensor.rows)
            if len(rows.ids):
                found[spec.name] = tensor_of(spec, *rows, updates=updates, policy=policy)
        return found

    def write(self, task: str, rows: Delta, *, updates: int) -> None:
        """Replace these rows; see ``Residuals.write``."""
        for name, tensor in rows.items():
            ids, values = as_rows(tensor)
            kept = values.any(axis=1)
            new = _Rows(ids[kept], values[kept].astype(np.float32), np.full(kept.sum(), updates))
            old = self._kept.get((task, name))
            self._keep(task, name, new if old is None else _merged(old.without(ids), new))

    def prune(self, task: str, *, updates: int, most: int) -> None:
        """Drop, now and then, rows that are too old; see ``Residuals.prune``."""
        if updates % PRUNED_EVERY:
            return
        for of, name in [key for key in self._kept if key[0] == task]:
            rows = self._kept[of, name]
            self._keep(of, name, rows.where(rows.seen >= updates - most))

    def _keep(self, task: str, name: str, rows: _Rows) -> None:
        if len(rows.ids):
            self._kept[task, name] = rows
        else:
            self._kept.pop((task, name), None)


def _merged(old: _Rows, new: _Rows) -> _Rows:
    """The rows of both, which have none in common."""
    order = np.argsort(np.concatenate([old.ids, new.ids]), kind="stable")
    return _Rows(
        np.concatenate([old.ids, new.ids])[order],
        np.concatenate([old.values, new.values])[order],
        np.concatenate([old.seen, new.seen])[order],
    )


def _found(ids: NDArray[np.int64], among: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which ids, bool [len(ids)], are among increasing others."""
    if not len(among):
        return np.zeros(len(ids), np.bool_)
    places = np.minimum(np.searchsorted(among, ids), len(among) - 1)
    found: NDArray[np.bool_] = among[places] == ids
    return found
