"""A delta: what a local update changed, as plain arrays."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Delta", "FloatArray", "RowBlock", "Tensor", "add", "squared_norm"]

FloatArray = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class RowBlock:
    """Some rows of a table.

    Attributes:
        rows: int64 [n], strictly increasing row ids.
        values: float32 [n, width].
    """

    rows: NDArray[np.int64]
    values: FloatArray

    def at(self, rows: NDArray[np.int64]) -> FloatArray:
        """Values at the given increasing rows, float32 [len(rows), width]; zero where absent."""
        there = self.has(rows)
        out = np.zeros((len(rows), self.values.shape[1]), np.float32)
        out[there] = self.values[np.searchsorted(self.rows, rows[there])]
        return out

    def has(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of the given rows are among these: bool [len(rows)]."""
        # A number below all of them, for those that are above: what is compared must be there.
        ends = np.append(self.rows, -1)
        return np.asarray(ends[np.searchsorted(self.rows, rows)] == rows)


Tensor = RowBlock | FloatArray
Delta = Mapping[str, Tensor]
"""Per federated parameter: a RowBlock for the role rows, a full float32 array for dense."""


def add(left: Delta, right: Delta, factor: float = 1.0) -> dict[str, Tensor]:
    """The sum left + factor * right; what only one side has counts as zero in the other."""
    names = [*left, *(name for name in right if name not in left)]
    return {name: _add(left.get(name), right.get(name), factor) for name in names}


def squared_norm(delta: Delta) -> float:
    """Sum of squares over all parameters, accumulated in float64."""
    values = (t.values if isinstance(t, RowBlock) else t for t in delta.values())
    return float(sum(np.square(v, dtype=np.float64).sum() for v in values))


def _scale(tensor: Tensor, factor: float) -> Tensor:
    if isinstance(tensor, RowBlock):
        return RowBlock(tensor.rows, tensor.values * np.float32(factor))
    return tensor * np.float32(factor)


def _add(left: Tensor | None, right: Tensor | None, factor: float) -> Tensor:
    if right is None:
        if left is None:
            raise ValueError("nothing to add")
        return left
    right = _scale(right, factor)
    if left is None:
        return right
    if isinstance(left, RowBlock) and isinstance(right, RowBlock):
        if not len(left.rows):
            return right
        if np.array_equal(left.rows, right.rows):
            return RowBlock(left.rows, left.values + right.values)
        rows = np.union1d(left.rows, right.rows)
        return RowBlock(rows, left.at(rows) + right.at(rows))
    if isinstance(left, RowBlock) or isinstance(right, RowBlock):
        raise ValueError("cannot add rows to a dense tensor")
    return left + right
