r"""Buffered asynchronous merging, as in FedBuff (Nguyen et al., AISTATS 2022, algorithm 1).

With the updates i of a buffer, their deltas D_i, their weights when fresh e_i (1, or the number of
examples) and the staleness weight s, a merge makes

    new = old + server_learning_rate * (sum of e_i * s(staleness_i) * D_i) / (sum of e_i)

The divisor is what the buffer would weigh if every update were fresh. So zero staleness is FedAvg
(McMahan et al., AISTATS 2017) exactly, and a buffer in which everything is stale takes a shorter
step; dividing by the staleness weights themselves would cancel them there. With the row correction
``touched`` both sums run, for each row, over the updates that touch the row.

Sums are kept in float64 and taken in the order of the ledger ids, so a merge gives the same bits
wherever and in whatever order it is run. Time and memory go with the rows that the buffer touches;
only ``apply`` copies a table, once a merge. What a rule can do against hostile updates is in
``robust``. ``tests/aggregator/merging`` has the laws and numbers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aggregator.merging.robust import clip_rows, multi_krum, trimmed_dense, trimmed_rows
from aggregator.merging.rule import RowCorrection, Rule, Weighting
from aggregator.merging.staleness import polynomial
from aggregator.merging.state import Contribution, Part, ServerState
from wire.delta import FloatArray, RowBlock

__all__ = ["Change", "apply", "combine", "merge"]

Float64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Change:
    """What a merge adds to one parameter.

    Attributes:
        rows: int64 [n], increasing ids of the rows that change; None for a dense parameter.
        values: float64, [n, width] or the parameter's full shape.
    """

    rows: NDArray[np.int64] | None
    values: Float64


def merge(state: ServerState, batch: Sequence[Contribution], rule: Rule) -> ServerState:
    """The next version: the state with a buffer of updates folded in.

    Args:
        state: the current version; not modified.
        batch: the buffered updates, in any order. An empty one still makes a version.
        rule: how they are weighed.

    Returns:
        A state with version + 1.

    Raises:
        ValueError: an update's base version is later than the state's, or a delta does not fit.
    """
    return apply(state, combine(state.version, batch, rule))


def combine(version: int, batch: Sequence[Contribution], rule: Rule) -> dict[str, Change]:
    """What the merge of a batch changes, at a cost that depends only on the rows it touches."""
    weigh = polynomial(rule.staleness_exponent)
    parts: list[Part] = []
    for contribution in sorted(batch, key=lambda contribution: contribution.id):
        fresh = _fresh_weight(contribution, rule)
        staleness = version - contribution.base_version
        weight = fresh * weigh(staleness)
        parts.append(Part(contribution.id, fresh, weight, contribution.delta))
    parts = _defended(parts, rule)
    total = sum(part.fresh for part in parts)
    names = dict.fromkeys(name for part in parts for name in part.delta)
    return {name: _combine_one(name, parts, total=total, rule=rule) for name in names}


def apply(state: ServerState, changes: Mapping[str, Change]) -> ServerState:
    """The next version; copies the parameters that change and shares the others."""
    parameters = dict(state.parameters)
    for name, change in changes.items():
        old = parameters[name]
        if change.rows is None:
            parameters[name] = (old + change.values).astype(np.float32)
        else:
            new = old.copy()
            new[change.rows] = (old[change.rows] + change.values).astype(np.float32)
            parameters[name] = new
    return ServerState(state.version + 1, parameters)


def _fresh_weight(contribution: Contribution, rule: Rule) -> float:
    return float(contribution.examples) if rule.weighting is Weighting.EXAMPLES else 1.0


def _defended(parts: list[Part], rule: Rule) -> list[Part]:
    # Clipped first: then no length, only directions, can set a part apart from the others.
    if rule.row_clip > 0.0:
        parts = clip_rows(parts, rule.row_clip)
    return multi_krum(parts, rule.krum_byzantine)


def _combine_one(name: str, parts: Sequence[Part], *, total: float, rule: Rule) -> Change:
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
        return _combine_rows(blocks, total=total, rule=rule)
    return _combine_dense(arrays, total=total, rule=rule)


def _combine_dense(
    arrays: Sequence[tuple[FloatArray, Part]], *, total: float, rule: Rule
) -> Change:
    step = _step(rule, total)
    if rule.trim > 0.0:
        present = sum(part.fresh for _, part in arrays)
        return Change(None, trimmed_dense(arrays, rule.trim) * (present * step))
    values = np.zeros(arrays[0][0].shape, np.float64)
    for array, part in arrays:
        values += np.multiply(array, part.weight, dtype=np.float64)
    return Change(None, values * step)


def _combine_rows(blocks: Sequence[tuple[RowBlock, Part]], *, total: float, rule: Rule) -> Change:
    rows = np.unique(np.concatenate([block.rows for block, _ in blocks]))
    values = np.zeros((len(rows), blocks[0][0].values.shape[1]), np.float64)
    touched = np.zeros(len(rows), np.float64)
    for block, part in blocks:
        at = np.searchsorted(rows, block.rows)
        values[at] += np.multiply(block.values, part.weight, dtype=np.float64)
        touched[at] += part.fresh
    if rule.trim > 0.0:
        values = trimmed_rows(blocks, rule.trim)[1] * touched[:, None]
    if rule.row_correction is RowCorrection.TOUCHED:
        steps = np.zeros_like(touched)
        np.divide(rule.server_learning_rate, touched, out=steps, where=touched > 0.0)
        return Change(rows, values * steps[:, None])
    return Change(rows, values * _step(rule, total))


def _step(rule: Rule, total: float) -> float:
    return rule.server_learning_rate / total if total > 0.0 else 0.0
