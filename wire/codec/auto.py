"""The form that takes the fewest bits for an allowed error.

Forms are compared by their size before they are written, most of them without being made: a sample
of the entries tells how large the quantised block would be, and the energy that is left after some
directions tells how many factors it would take.
"""

import math

import numpy as np
from numpy.typing import NDArray

from wire.codec.forms import Factors, Form, Half, Raw
from wire.codec.index_set import index_set_bits
from wire.codec.levels import SCALE_BITS, codes_bits
from wire.codec.low_rank import directions, factored
from wire.codec.quantise import in_steps, step_within
from wire.delta import FloatArray
from wire.errors import NotFiniteError
from wire.policy import MAX_RANK

__all__ = ["form_within", "squared_error"]

Float64 = NDArray[np.float64]
SAMPLE = 1024
TAIL_SHARE = 0.9
SHORTER, ATTEMPTS = 0.98, 16


def form_within(values: FloatArray, nmse: float, universe: int) -> Form:
    """The smallest form with an error of at most ``nmse``, relative to the block's energy.

    Args:
        values: float32 [h, w], not all zero.
        nmse: 0 to 1; 0 for no error at all.
        universe: how many rows there are to choose these from; their numbers take bits too.
    """
    exact = values.astype(np.float64)
    allowed = nmse * float(np.square(exact).sum())
    half = Half.of(values)
    best: Form = half if squared_error(exact, half) <= allowed else Raw(values)
    if allowed > 0.0:
        step, bits = _estimate(np.abs(exact).ravel(), allowed, len(values), universe)
        factors = _smallest_factors(exact, allowed, universe, min(bits, best.bits()))
        if factors is not None:
            return factors
        if bits < best.bits():
            return _plain_within(exact, allowed, step) or best
    return best


def squared_error(values: Float64, form: Form) -> float:
    """What is lost: the sum of squared differences; infinite where a value does not fit."""
    try:
        difference = values - form.values()
    except NotFiniteError:
        return math.inf
    return float(np.square(difference, out=difference).sum())


def sent_bits(form: Form, universe: int) -> float:
    """Bits of the rows of a form that are not zero, and of their numbers."""
    touched = form.touched()
    count = int(np.count_nonzero(touched))
    return index_set_bits(count, universe) + form.of_rows(touched).bits()


def _estimate(magnitudes: Float64, allowed: float, rows: int, universe: int) -> tuple[float, float]:
    """The step for a quantised block, and about its size in bits, from a sample of entries."""
    stride = -(-len(magnitudes) // SAMPLE)
    while math.gcd(stride, len(magnitudes) // rows) > 1:
        stride += 1
    sample = magnitudes[::stride]
    share = len(sample) / len(magnitudes)
    if not sample.any():
        return 0.0, math.inf
    step = step_within(sample, allowed * share)
    codes = in_steps(sample[:, None], step).codes
    kept = round(len(codes) / share)
    sets = index_set_bits(rows, universe) + index_set_bits(kept, len(magnitudes))
    return step, sets + 2 * SCALE_BITS + kept + codes_bits(codes) / share


def _plain_within(values: Float64, allowed: float, step: float) -> Form | None:
    for _ in range(ATTEMPTS):
        levels = in_steps(values, step)
        error = squared_error(values, levels)
        if error <= allowed:
            return levels
        if error == math.inf:
            break
        step *= min(SHORTER, math.sqrt(allowed / error))
    return None


def _smallest_factors(
    values: Float64, allowed: float, universe: int, most_bits: float
) -> Factors | None:
    """The smallest factors of less than ``most_bits``, if there are any."""
    height, width = values.shape
    best: Factors | None = None
    vectors: list[Float64] = []
    rest = float(np.square(values).sum())
    for vector, energy in directions(values):
        vectors.append(vector)
        rest -= energy
        # Later directions have less energy than this one, so at least so many are needed.
        needed = len(vectors) + max(0.0, math.ceil((rest - allowed) / energy))
        if needed > MAX_RANK or needed * (2 * width + height / 4) > most_bits:
            break
        if rest > TAIL_SHARE * allowed:
            continue
        factors = _factors_within(values, np.array(vectors), allowed, rest)
        bits = sent_bits(factors, universe) if factors is not None else math.inf
        if bits >= most_bits:
            break
        best, most_bits = factors, bits
        # What the best next direction could save in the left factor, against what it costs.
        if height / 2 * math.log2(allowed / (allowed - max(rest, 0.0))) < 3 * width:
            break
    return best


def _factors_within(
    values: Float64, vectors: Float64, allowed: float, rest: float
) -> Factors | None:
    coordinates = values @ vectors.T
    energy = float(np.square(coordinates).sum())
    step = step_within(np.abs(coordinates).ravel(), allowed - max(rest, 0.0), vectors.size)
    for _ in range(ATTEMPTS):
        # In this ratio of steps an entry of either factor costs the same error.
        factors = factored(values, vectors, left_step=step, right_step=step / math.sqrt(energy))
        error = squared_error(values, factors)
        if error <= allowed:
            return factors
        if error == math.inf:
            break
        step *= min(SHORTER, math.sqrt(allowed / error))
    return None
