"""Merging when some devices lie: what an operator can switch on against hostile updates.

``clip_rows`` and ``multi_krum`` go from the parts of a buffer to the parts that are merged;
``trimmed_rows`` and ``trimmed_dense`` take the place of the mean of one parameter. All of them are
deterministic and remember nothing: sums run in float64 over parts in the order of the ledger ids,
and ties go to the earlier part. Time and memory go with the rows that the parts touch, and for
``multi_krum`` with the square of the number of parts.

The first two look at deltas alone, not at what they weigh. A part that is left out counts nowhere
in the mean, its weight and its rows included; one that is clipped weighs what it did.

None of them helps where most of those that touch a row lie: that is soon so on a row that few
honest devices touch. ``tests/aggregator/merging/test_robust.py`` has the laws and the numbers, and
`make bench-attacks` shows what each one buys against which attack.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from aggregator.merging.part import Part
from wire.delta import Delta, FloatArray, RowBlock, Tensor

__all__ = ["clip_rows", "multi_krum", "trimmed_dense", "trimmed_rows"]

Float64 = NDArray[np.float64]
SLACK = 1e-9
"""Share times count may come out a rounding error above a whole number."""


def clip_rows(parts: Sequence[Part], factor: float) -> list[Part]:
    """Scale every row that is longer than ``factor`` usual rows down to that length.

    The usual row of a parameter is the median over the parts of each one's median row, rows of
    zeros left out: so neither a device that sends many rows nor any minority of devices decides
    what is usual. A dense parameter counts as one row. It is norm clipping, as in Sun et al., "Can
    You Really Backdoor Federated Learning?", 2019 (arXiv:1911.07963), section 3, taken row by row.

    Args:
        parts: of a buffer.
        factor: above 0. The honest rows that are longer are clipped as well.

    Returns:
        The parts in their order; what is short enough has the same bits as before.
    """
    caps = {name: factor * usual for name, usual in _usual_lengths(parts).items()}
    return [replace(part, delta=_clipped(part.delta, caps)) for part in parts]


def multi_krum(parts: Sequence[Part], byzantine: int) -> list[Part]:
    """Leave out the parts that are farthest from their neighbours.

    Multi-Krum of Blanchard et al., "Machine Learning with Adversaries: Byzantine Tolerant Gradient
    Descent", NeurIPS 2017, section 4: a part's score is the sum of its squared distances to its
    n - f - 2 nearest others, and the n - f parts of the lowest scores are kept. Distances run over
    all parameters and over the union of the touched rows; a row that is absent counts as zero.

    Args:
        parts: of a buffer, n of them, in the order of the ledger ids.
        byzantine: f, how many may be hostile. The method is for n > 2 f + 2; in a buffer too
            small for that, f is what it allows.

    Returns:
        The kept parts in their order.
    """
    byzantine = min(byzantine, (len(parts) - 3) // 2)
    if byzantine < 1:
        return list(parts)
    distances = _squared_distances([part.delta for part in parts])
    # The first of each row is the distance to oneself.
    nearest = np.sort(distances, axis=1)[:, 1 : len(parts) - byzantine - 1]
    best = np.argsort(nearest.sum(axis=1), kind="stable")[: len(parts) - byzantine]
    return [parts[at] for at in np.sort(best)]


def trimmed_rows(
    name: str, blocks: Sequence[tuple[RowBlock, Part]], trim: float
) -> tuple[NDArray[np.int64], Float64]:
    """The trimmed mean of each row over the parts that touch it, coordinate by coordinate.

    Coordinate-wise trimmed mean of Yin et al., "Byzantine-Robust Distributed Learning: Towards
    Optimal Statistical Rates", ICML 2018, definition 2: of the n values of a coordinate the k
    smallest and the k largest are left out. Here n differs from row to row, and
    k = min(ceil(trim * n), (n - 1) // 2): rounded up, so that one liar among three is left out, and
    at least one value stays. What is sorted is a part's value times its staleness weight: what it
    weighs there (``weight``, or the row's own of ``row_weights``) over what it weighs ``fresh``.
    The mean is weighed by the ``fresh`` weights; with nothing trimmed it is the plain mean.

    Args:
        name: of the parameter.
        blocks: each part's rows of it, in the order of the ledger ids.
        trim: share of the values that is left out at each end, 0 to below 0.5.

    Returns:
        The touched rows, int64 [n] and increasing, and their means, float64 [n, width].
    """
    every = np.concatenate([block.rows for block, _ in blocks])
    order = np.argsort(every, kind="stable")
    values = np.concatenate(
        [_discounted(block.values, _discount(part, name)) for block, part in blocks]
    )[order]
    weights = np.repeat([p.fresh for _, p in blocks], [len(b.rows) for b, _ in blocks])[order]
    rows, starts, counts = np.unique(every[order], return_index=True, return_counts=True)
    means = np.zeros((len(rows), values.shape[1]), np.float64)
    for count in np.unique(counts):
        which = counts == count
        at = starts[which, None] + np.arange(count)
        means[which] = _trimmed_means(values[at], weights[at], trim)
    return rows, means


def trimmed_dense(arrays: Sequence[tuple[FloatArray, Part]], trim: float) -> Float64:
    """The same for a dense parameter: float64 of its shape, over the parts that have it."""
    values = np.stack([_discounted(array, _discount(part)).reshape(-1) for array, part in arrays])
    weights = np.array([[part.fresh for _, part in arrays]])
    means: Float64 = _trimmed_means(values[None], weights, trim).reshape(arrays[0][0].shape)
    return means


def _usual_lengths(parts: Sequence[Part]) -> dict[str, float]:
    medians: dict[str, list[float]] = {}
    for part in parts:
        for name, tensor in part.delta.items():
            lengths = _row_lengths(tensor)
            if lengths.any():
                medians.setdefault(name, []).append(float(np.median(lengths[lengths > 0.0])))
    return {name: float(np.median(found)) for name, found in medians.items()}


def _row_lengths(tensor: Tensor) -> Float64:
    rows = tensor.values if isinstance(tensor, RowBlock) else tensor.reshape(1, -1)
    squares = np.square(rows, dtype=np.float64).sum(axis=1)
    lengths: Float64 = np.sqrt(squares)
    return lengths


def _clipped(delta: Delta, caps: Mapping[str, float]) -> dict[str, Tensor]:
    return {
        name: _clip(tensor, caps[name]) if name in caps else tensor
        for name, tensor in delta.items()
    }


def _clip(tensor: Tensor, cap: float) -> Tensor:
    lengths = _row_lengths(tensor)
    if not (lengths > cap).any():
        return tensor
    # A length of zero never exceeds the cap, and is not divided by.
    factors = cap / np.maximum(lengths, cap)
    if isinstance(tensor, RowBlock):
        return RowBlock(tensor.rows, (tensor.values * factors[:, None]).astype(np.float32))
    clipped: FloatArray = (tensor * factors[0]).astype(np.float32)
    return clipped


def _squared_distances(deltas: Sequence[Delta]) -> Float64:
    """Between every two deltas, float64 [n, n], as |a|^2 + |b|^2 - 2 a.b."""
    inner = np.zeros((len(deltas), len(deltas)), np.float64)
    for name in dict.fromkeys(name for delta in deltas for name in delta):
        inner += _inner_products([delta.get(name) for delta in deltas])
    squares = np.diag(inner)
    distances: Float64 = np.maximum(squares[:, None] + squares[None] - 2.0 * inner, 0.0)
    np.fill_diagonal(distances, 0.0)
    return distances


def _inner_products(tensors: Sequence[Tensor | None]) -> Float64:
    inner = np.zeros((len(tensors), len(tensors)), np.float64)
    present = [(at, tensor) for at, tensor in enumerate(tensors) if tensor is not None]
    for (i, left), (j, right) in combinations(present, 2):
        inner[i, j] = inner[j, i] = _inner_product(left, right)
    for i, tensor in present:
        values = tensor.values if isinstance(tensor, RowBlock) else tensor
        inner[i, i] = np.square(values, dtype=np.float64).sum()
    return inner


def _inner_product(left: Tensor, right: Tensor) -> float:
    # Not a matrix product: BLAS adds in another order on another machine.
    if isinstance(left, RowBlock) and isinstance(right, RowBlock):
        _, here, there = np.intersect1d(
            left.rows, right.rows, assume_unique=True, return_indices=True
        )
        product = np.multiply(left.values[here], right.values[there], dtype=np.float64)
    elif isinstance(left, RowBlock) or isinstance(right, RowBlock):
        raise ValueError("a parameter has both rows and dense deltas in one batch")
    else:
        product = np.multiply(left, right, dtype=np.float64)
    return float(product.sum())


def _discount(part: Part, name: str | None = None) -> float | Float64:
    if part.fresh == 0.0:
        return 0.0
    own = None if name is None else part.row_weights.get(name)
    return part.weight / part.fresh if own is None else own[:, None] / part.fresh


def _discounted(values: FloatArray, discount: float | Float64) -> Float64:
    product: Float64 = np.multiply(values, discount, dtype=np.float64)
    return product


def _trimmed_means(values: Float64, weights: Float64, trim: float) -> Float64:
    """Means over axis 1 of [m, n, width] with weights [m, n]; zero where all kept weigh zero."""
    count = values.shape[1]
    cut = min(math.ceil(trim * count - SLACK), (count - 1) // 2)
    kept = np.argsort(values, axis=1, kind="stable")[:, cut : count - cut]
    # Back to the order of the parts, in which the plain mean adds too.
    kept.sort(axis=1)
    weighed = np.take_along_axis(np.broadcast_to(weights[:, :, None], values.shape), kept, axis=1)
    sums = (np.take_along_axis(values, kept, axis=1) * weighed).sum(axis=1)
    totals = weighed.sum(axis=1)
    means: Float64 = np.zeros(sums.shape, np.float64)
    np.divide(sums, totals, out=means, where=totals > 0.0)
    return means
