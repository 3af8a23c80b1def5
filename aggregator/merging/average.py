"""The weighted mean of a buffer's deltas, parameter by parameter.

Sums are kept in float64 and taken in the order of the parts, which is that of the ledger ids, so a
mean has the same bits wherever it is taken. Time and memory go with the rows that are touched.
The trimmed mean is in ``robust``; here it is scaled as the plain one is.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aggregator.merging.choices import RowCorrection
from aggregator.merging.part import Part
from aggregator.merging.robust import trimmed_dense, trimmed_rows
from aggregator.merging.rule import Rule
from wire.delta import FloatArray, RowBlock

__all__ = ["Average", "average", "union"]


@dataclass(frozen=True, slots=True)
class Average:
    """What a buffer says about one parameter.

    Attributes:
        rows: int64 [n], increasing ids of the rows that are touched; None for a dense parameter.
        values: float64, [n, width] or the parameter's full shape.
    """

    rows: NDArray[np.int64] | None
    values: NDArray[np.float64]


def average(parts: Sequence[Part], rule: Rule) -> dict[str, Average]:
    """For each parameter (sum of weight * delta) / (sum of fresh weights).

    With the row correction ``touched`` both sums run, for each row, over the parts that touch it.
    Where the rule trims, the trimmed mean over the parts that have a parameter, or touch a row,
    takes the place of the plain mean over the same parts: what it is divided by stays.

    Args:
        parts: the buffer, in the order of the ledger ids.
        rule: for its row correction and its trim.

    Raises:
        ValueError: a parameter has rows in one delta and is dense in another.
    """
    total = sum(part.fresh for part in parts)
    names = dict.fromkeys(name for part in parts for name in part.delta)
    return {name: _average(name, parts, total=total, rule=rule) for name in names}


def union(rows: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """The rows that are in any of some increasing arrays, increasing; at least one is given."""
    return rows[0] if len(rows) == 1 else np.unique(np.concatenate(rows))


def _average(name: str, parts: Sequence[Part], *, total: float, rule: Rule) -> Average:
    blocks: list[tuple[RowBlock, Part]] = []
    arrays: list[tuple[FloatArray, Part]] = []
    for part in parts:
        tensor = part.delta.get(name)
        if isinstance(tensor, RowBlock):
            blocks.append((tensor, part))
        elif tensor is not None:
            arrays.append((tensor, part))
    if blocks and arrays:
        raise ValueError(f"{name} has both rows and dense deltas in one batch")
    if blocks:
        touched = rule.row_correction is RowCorrection.TOUCHED
        return _average_rows(name, blocks, total=None if touched else total, rule=rule)
    return _average_dense(arrays, total=total, rule=rule)


def _average_dense(
    arrays: Sequence[tuple[FloatArray, Part]], *, total: float, rule: Rule
) -> Average:
    if rule.trims:
        present = sum(part.fresh for _, part in arrays)
        return Average(None, trimmed_dense(arrays, rule.trim) * (present / total))
    values = np.zeros(arrays[0][0].shape, np.float64)
    for array, part in arrays:
        values += np.multiply(array, part.weight, dtype=np.float64)
    return Average(None, values / total)


def _average_rows(
    name: str, blocks: Sequence[tuple[RowBlock, Part]], *, total: float | None, rule: Rule
) -> Average:
    rows = union([block.rows for block, _ in blocks])
    values = np.zeros((len(rows), blocks[0][0].values.shape[1]), np.float64)
    touched = np.zeros((len(rows), 1), np.float64)
    for block, part in blocks:
        at = rows.searchsorted(block.rows)
        own = part.row_weights.get(name)
        weight = part.weight if own is None else own[:, None]
        values[at] += np.multiply(block.values, weight, dtype=np.float64)
        touched[at] += part.fresh
    if rule.trims:
        values = trimmed_rows(name, blocks, rule.trim)[1] * touched
    values /= touched if total is None else total
    return Average(rows, values)
