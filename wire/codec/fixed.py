"""The forms of the modes that an operator fixes."""

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from wire.codec.forms import FRACTIONS, SMALLEST_SCALE, Factors, Form, Scaled, row_scales
from wire.codec.levels import Levels, round_scale
from wire.codec.low_rank import directions, factored
from wire.codec.quantise import in_bits, unbiased
from wire.delta import FloatArray
from wire.policy import CodecPolicy

__all__ = ["low_rank", "quantised", "top_entries", "top_rows"]

Mask = NDArray[np.bool_]


def top_entries(values: FloatArray, density: float) -> Mask:
    """The largest ``ceil(density * size)`` magnitudes, zeros never: bool [h, w]."""
    return _largest(np.abs(values).ravel(), density).reshape(values.shape)


def top_rows(values: FloatArray, density: float) -> Mask:
    """All entries but zeros of the ``ceil(density * h)`` rows of the largest norm: bool [h, w]."""
    norms = np.square(values, dtype=np.float64).sum(axis=1)
    return np.asarray(_largest(norms, density)[:, None] & (values != 0))


def quantised(
    values: FloatArray, kept: Mask, policy: CodecPolicy, rng: np.random.Generator
) -> Form:
    """Some entries at the policy's number of bits, with a scale for each row or for all.

    Args:
        values: float32 [h, w].
        kept: bool [h, w], what is not to be zero; not all false.
        policy: with the bits.
        rng: for unbiased rounding.
    """
    exact = np.where(kept, values, 0).astype(np.float64)
    if not policy.row_scales:
        return _levels(exact, kept, policy, rng)
    scales = _scales(exact, largest=policy.unbiased)
    scaled = Scaled(_levels(exact / row_scales(scales)[:, None], kept, policy, rng), scales)
    return scaled if policy.unbiased else _projected(exact, scaled)


def low_rank(values: FloatArray, policy: CodecPolicy) -> Factors:
    """At most ``policy.rank`` factors, and no more than it takes to lose ``policy.nmse``."""
    exact = values.astype(np.float64)
    energy = float(np.square(exact).sum())
    rest, vectors = energy, []
    for vector, kept in directions(exact):
        vectors.append(vector)
        rest -= kept
        if len(vectors) == policy.rank or rest <= policy.nmse * energy:
            break
    right = np.array(vectors)
    left = exact @ right.T
    # 2**bits levels within two root mean squares; entropy coding pays for the few beyond.
    steps = [4 * math.sqrt(np.square(m).mean()) / (1 << policy.bits) for m in (left, right)]
    return factored(exact, right, left_step=steps[0], right_step=steps[1])


def _largest(sizes: NDArray[np.floating], density: float) -> Mask:
    count = min(math.ceil(density * len(sizes)), int(np.count_nonzero(sizes)))
    largest = np.zeros(len(sizes), np.bool_)
    if count:
        largest[np.argpartition(sizes, -count)[-count:]] = True
    return largest


def _levels(
    values: NDArray[np.float64], kept: Mask, policy: CodecPolicy, rng: np.random.Generator
) -> Levels:
    if policy.unbiased:
        return unbiased(values, kept, policy.bits, rng)
    return in_bits(values, kept, policy.bits)


def _scales(values: NDArray[np.float64], *, largest: bool) -> NDArray[np.int64]:
    """The scale of each row for its mean magnitude, or for its largest."""
    magnitudes = np.abs(values)
    if largest:
        peaks = magnitudes.max(axis=1)
    else:
        peaks = magnitudes.sum(axis=1) / np.maximum(1, np.count_nonzero(values, axis=1))
    below = np.log2(peaks.max() / np.maximum(peaks, peaks.max() * 1e-30))
    return np.asarray(np.minimum(np.floor(len(FRACTIONS) * below), SMALLEST_SCALE), np.int64)


def _projected(values: NDArray[np.float64], scaled: Scaled) -> Scaled:
    """Scaled as a whole to where it is nearest to the values."""
    found = scaled.values().astype(np.float64)
    gain = float(np.vdot(values, found) / np.vdot(found, found))
    levels = scaled.levels
    base, step = round_scale(gain * levels.base), round_scale(gain * levels.step)
    return replace(scaled, levels=replace(levels, base=base, step=step))
