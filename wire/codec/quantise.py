"""How a sender picks levels for a matrix: for a step, for a number of bits, or without bias.

All but the last lose at most what the matrix has: what is read is never further from the matrix
than zero is. Error feedback relies on that (Karimireddy et al., "Error Feedback Fixes SignSGD and
other Gradient Compression Schemes", ICML 2019, assumption A).
"""

import numpy as np
from numpy.typing import NDArray

from wire.codec.levels import Levels, round_scale

__all__ = ["in_bits", "in_steps", "step_within", "unbiased"]

Floats = NDArray[np.floating]
Mask = NDArray[np.bool_]

DEAD_ZONE = 0.15
"""By how much of a step magnitudes are rounded down rather than to the nearest level: what is close
to the middle costs fewer bits below than it gains in error above."""
REFITS = 2
TRIALS, SHORTER = 4, 0.9


def in_steps(values: Floats, step: float) -> Levels:
    """Every entry to a multiple of about ``step``, small ones to zero.

    Such a quantiser with entropy-coded levels is within a quarter of a bit of the best possible
    (Gish and Pierce, "Asymptotically Efficient Quantizing", IEEE Transactions on Information
    Theory 14(5), 1968), for the squared error over all entries.

    Args:
        values: floats [h, w].
        step: above 0.
    """
    magnitudes = np.abs(values, dtype=np.float64)
    # What is zero goes by the exact step, so that the error can be had as large as is allowed.
    kept = magnitudes >= (0.5 + DEAD_ZONE) * step
    inside, step = magnitudes[kept], round_scale(step)
    codes = _codes(inside, step)
    np.maximum(codes, 0.0, out=codes)
    base = float((inside - codes * step).sum()) / len(inside) if len(inside) else 0.0
    return Levels(kept, values[kept] < 0, codes.astype(np.int64), round_scale(base), step)


def step_within(magnitudes: NDArray[np.float64], allowed: float, beside: int = 0) -> float:
    """About the longest step of ``in_steps`` with a squared error of at most ``allowed``.

    Args:
        magnitudes: float64 [n], not all zero.
        allowed: above 0.
        beside: how many other numbers are rounded to the same step and share the error.
    """
    step = float(np.sqrt(12.0 * allowed / (len(magnitudes) + beside)))
    best = 0.0
    for _ in range(TRIALS):
        error = _error(magnitudes, step) + beside * step * step / 12.0
        if error <= allowed:
            best = max(best, step)
        step *= min(4.0, max(0.25, (allowed / error) ** 0.6)) if error > 0.0 else 4.0
    return best or SHORTER * step


def in_bits(values: Floats, kept: Mask, bits: int) -> Levels:
    """Some entries, in 2**bits levels: a sign, and a magnitude of which one bit is the mean.

    With one bit this is sign times mean (Bernstein et al., "signSGD", ICML 2018, with the scale of
    Karimireddy et al.). Base and step start at the mean of the smallest and of the largest share of
    magnitudes, and are fitted by least squares.

    Args:
        values: floats [h, w].
        kept: bool [h, w], what is not to be zero.
        bits: 1 to 8.
    """
    magnitudes = np.abs(values[kept], dtype=np.float64)
    steps = (1 << bits - 1) - 1
    base, step = _start(magnitudes, steps)
    codes = _nearest(magnitudes, base, step, steps)
    for _ in range(REFITS if steps else 0):
        base, step = _fitted(magnitudes, codes, base, step)
        codes = _nearest(magnitudes, base, step, steps)
    levels = base + codes * step
    energy = float(levels @ levels)
    gain = float(magnitudes @ levels) / energy if energy > 0.0 else 1.0
    base, step = round_scale(base * gain), round_scale(step * gain)
    codes = _nearest(magnitudes, base, step, steps)
    return Levels(kept, values[kept] < 0, codes, base, step)


def unbiased(values: Floats, kept: Mask, bits: int, rng: np.random.Generator) -> Levels:
    """Some entries to one of the two levels next to each, at random.

    The mean over the random choices is the entry itself (Alistarh et al., "QSGD", NeurIPS 2017).
    The levels are the odd multiples, up to 2**bits - 1, of a base that fits the largest magnitude.

    Args:
        values: floats [h, w].
        kept: bool [h, w], what is not to be zero: at least what is not zero now.
        bits: 1 to 8.
        rng: for the choices.
    """
    entries = values[kept].astype(np.float64)
    most = (1 << bits) - 1
    base = round_scale(1.02 * float(np.abs(entries).max(initial=0.0)) / most)
    places = np.floor((entries / base + most) / 2 + rng.random(len(entries)))
    odd = (2 * places - most).astype(np.int64)
    return Levels(kept, odd < 0, np.abs(odd) >> 1, base, 2 * base)


def _error(magnitudes: NDArray[np.float64], step: float) -> float:
    codes = _codes(magnitudes, step)
    kept = codes >= 0.0
    rests = np.maximum(codes, 0.0, out=codes)
    rests *= step
    np.subtract(magnitudes, rests, out=rests)
    inside = rests[kept]
    return float(rests @ rests) - float(inside.sum()) ** 2 / max(1, len(inside))


def _codes(magnitudes: NDArray[np.float64], step: float) -> NDArray[np.float64]:
    """Below 0 for what is rounded to zero."""
    codes = magnitudes / step
    codes -= 0.5 + DEAD_ZONE
    return np.floor(codes, out=codes)


def _start(magnitudes: NDArray[np.float64], steps: int) -> tuple[float, float]:
    if not steps:
        return float(magnitudes.mean()), 0.0
    ordered = np.sort(magnitudes)
    share = -(-len(ordered) // (steps + 1))
    low, high = float(ordered[:share].mean()), float(ordered[-share:].mean())
    return low, (high - low) / steps


def _nearest(
    magnitudes: NDArray[np.float64], base: float, step: float, steps: int
) -> NDArray[np.int64]:
    if step <= 0.0:
        return np.zeros(len(magnitudes), np.int64)
    return np.rint(np.clip((magnitudes - base) / step, 0, steps)).astype(np.int64)


def _fitted(
    magnitudes: NDArray[np.float64], codes: NDArray[np.int64], base: float, step: float
) -> tuple[float, float]:
    """The line through magnitudes over codes; the old one where that is no scale."""
    apart = codes - codes.mean()
    spread = float(apart @ apart)
    if spread <= 0.0:
        return base, step
    slope = float(apart @ magnitudes) / spread
    start = float(magnitudes.mean()) - slope * float(codes.mean())
    return (start, slope) if start > 0.0 and slope > 0.0 else (base, step)
