"""How a sender factors a block of rows: its leading singular directions, quantised.

Rounding the coordinates along orthogonal directions to one common step spreads the error in the
best way over directions of different energy ("reverse water-filling", Cover and Thomas, Elements of
Information Theory, section 10.3.3).
"""

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from wire.codec.forms import Factors
from wire.codec.quantise import in_steps
from wire.policy import MAX_RANK

__all__ = ["directions", "factored"]

Float64 = NDArray[np.float64]
ITERATIONS = 12
RIDGE = 1e-12


def directions(values: Float64) -> Iterator[tuple[Float64, float]]:
    """About the right singular vectors, from the most energy down, each with its energy.

    What the block has apart from the vectors so far is at most its energy less theirs.

    By power iteration on the Gram matrix of the shorter side: a few are found much sooner than by a
    full decomposition, and only a few are of use.

    Args:
        values: float64 [h, w], not so large or small that its squares are not finite or zero.
    """
    tall = values.shape[0] >= values.shape[1]
    gram = values.T @ values if tall else values @ values.T
    for _ in range(min(MAX_RANK, len(gram))):
        vector = _leading(gram)
        if vector is None:
            return
        along = gram @ vector
        energy = float(vector @ along)
        # The projection away from the vector: what is left is right even where the vector is not
        # quite an eigenvector, as among directions of nearly equal energy.
        crossed = (along - energy / 2 * vector)[:, None] * vector
        gram = gram - crossed - crossed.T
        if not tall:
            vector = values.T @ vector
            vector /= np.linalg.norm(vector)
        yield vector, energy


def factored(values: Float64, vectors: Float64, *, left_step: float, right_step: float) -> Factors:
    """The block as factors.

    The left factor is fitted to the right one as a reader will see it, so it makes up for some of
    the rounding of the right one.

    Args:
        values: float64 [h, w].
        vectors: float64 [rank, w], the right factor, of unit vectors.
        left_step: for the left factor.
        right_step: for the right factor.
    """
    right = in_steps(vectors, right_step)
    seen = right.values().astype(np.float64)
    left = in_steps(_coordinates(values, seen), left_step)
    used = left.kept.any(axis=0)
    if used.any() and not used.all():
        return factored(values, vectors[used], left_step=left_step, right_step=right_step)
    return Factors(left, right)


def _coordinates(values: Float64, vectors: Float64) -> Float64:
    """The rows of ``values`` in terms of vectors [rank, w], by least squares."""
    gram = vectors @ vectors.T
    # A vector that was rounded to zero gets coordinates of zero.
    gram.flat[:: len(gram) + 1] += RIDGE * max(1.0, float(gram.trace()))
    return np.asarray(np.linalg.solve(gram, vectors @ values.T).T)


def _leading(gram: Float64) -> Float64 | None:
    """The unit eigenvector of the largest eigenvalue; None if all is zero."""
    start = int(gram.diagonal().argmax())
    if not gram[start, start] > 0.0:
        return None
    vector: Float64 = gram[start]
    square = gram @ gram / gram[start, start] ** 2
    for _ in range(ITERATIONS):
        vector = square @ vector
        vector /= math.sqrt(vector @ vector)
    return vector
