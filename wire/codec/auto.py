"""The form that takes the fewest bits for an allowed error.

Forms are compared by their size before they are written, most of them without being made: a sample
of the entries tells how large the quantised block would be, and the energy that is left after some
directions tells how many factors it would take.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from wire.codec.forms import Factors, Form, Half, Raw
from wire.codec.index_set import index_set_bits
from wire.codec.levels import SCALE_BITS, Levels, coding_of
from wire.codec.low_rank import directions, factored
from wire.codec.quantise import in_steps, step_within
from wire.delta import FloatArray
from wire.errors import NotFiniteError
from wire.policy import MAX_RANK

__all__ = ["form_within"]

F = TypeVar("F", bound=Form)
Float64 = NDArray[np.float64]

SAMPLE = 1024
TAIL_SHARE = 0.9
ENOUGH, CAREFUL, SHORTER, ATTEMPTS = 0.98, 0.997, 0.98, 16
FINEST = 2.0**-26
"""Of the largest entry: float32 is no finer, so nothing is gained by it over what is raw."""


def form_within(values: FloatArray, nmse: float, *, universe: int, all_rows: bool) -> Form:
    """The smallest form with an error of at most ``nmse``, relative to the block's energy.

    Args:
        values: float32 [h, w], not all zero.
        nmse: 0 to 1; 0 for no error at all.
        universe: how many rows there are to choose these from; their numbers take bits too.
        all_rows: whether rows of which nothing is left will be named all the same.
    """
    exact = values.astype(np.float64)
    allowed = nmse * float(np.square(exact).sum())
    best: Form | None = None
    if allowed > 0.0:
        search = _Search(exact, allowed, universe, all_rows)
        step, bits = search.estimate()
        best = search.smallest_factors(bits) or search.quantised(step)
    if best is not None and best.bits() <= Half.ENTRY_BITS * values.size:
        return best
    half = Half.of(values)
    if _lost(exact, half) <= allowed:
        return half
    return best if best is not None and best.bits() <= Raw.ENTRY_BITS * values.size else Raw(values)


@dataclass(frozen=True, slots=True)
class _Search:
    """For a form of some values [h, w] with at most an allowed squared error."""

    values: Float64
    allowed: float
    universe: int
    all_rows: bool

    def sent_bits(self, form: Form) -> float:
        """About the bits of a form and of the numbers of its rows."""
        if self.all_rows:
            return index_set_bits(len(self.values), self.universe) + form.bits()
        named = form.touched()
        rows = index_set_bits(int(np.count_nonzero(named)), self.universe)
        return rows + form.of_rows(named).bits()

    def estimate(self) -> tuple[float, float]:
        """The step for a quantised block, and about its bits, from a sample of the entries."""
        height, width = self.values.shape
        stride = -(-self.values.size // SAMPLE)
        while math.gcd(stride, width) > 1:
            stride += 1
        sample = np.abs(self.values.ravel()[::stride])
        share = len(sample) / self.values.size
        if not sample.any():
            return 0.0, math.inf
        step = step_within(sample, self.allowed * share)
        codes = in_steps(sample[:, None], step).codes
        kept = round(len(codes) / share)
        sets = index_set_bits(height, self.universe) + index_set_bits(kept, self.values.size)
        return step, sets + 2 * SCALE_BITS + kept + coding_of(codes).bits / share

    def quantised(self, step: float) -> Levels | None:
        """The block in steps of about a length."""
        return self._within(lambda length: in_steps(self.values, length), step, self.values)

    def smallest_factors(self, most_bits: float) -> Factors | None:
        """The smallest factors of less than ``most_bits``, if there are any."""
        height, width = self.values.shape
        best: Factors | None = None
        vectors: list[Float64] = []
        rest = float(np.square(self.values).sum())
        for vector, energy in directions(self.values):
            vectors.append(vector)
            rest -= energy
            # Later directions have less energy than this one, so at least so many are needed.
            needed = len(vectors) + max(0.0, math.ceil((rest - self.allowed) / energy))
            if needed > MAX_RANK or needed * (2 * width + height / 4) > most_bits:
                break
            if rest > TAIL_SHARE * self.allowed:
                continue
            factors = self._factors(np.array(vectors), max(rest, 0.0))
            bits = self.sent_bits(factors) if factors is not None else math.inf
            if bits >= most_bits:
                break
            best, most_bits = factors, bits
            # What the best next direction could save in the left factor, against what it costs.
            saved = height / 2 * math.log2(self.allowed / (self.allowed - max(rest, 0.0)))
            if saved < 3 * width:
                break
        return best

    def _factors(self, vectors: Float64, rest: float) -> Factors | None:
        coordinates = self.values @ vectors.T
        size = math.sqrt(np.square(coordinates).sum())
        step = step_within(np.abs(coordinates).ravel(), self.allowed - rest, vectors.size)
        # In this ratio of steps an entry of either factor costs the same error.
        return self._within(
            lambda length: factored(
                self.values, vectors, left_step=length, right_step=length / size
            ),
            step,
            coordinates,
        )

    def _within(self, make: Callable[[float], F], step: float, entries: Float64) -> F | None:
        """What is made with about the longest step for which no more is lost than is allowed.

        The step is for these entries.
        """
        best: F | None = None
        finest = FINEST * float(np.abs(entries).max())
        for attempt in range(ATTEMPTS):
            if step < finest:
                break
            form = make(step)
            lost = _lost(self.values, form)
            if lost <= self.allowed:
                best = form
            if lost in (0.0, math.inf) or (best and (lost > ENOUGH * self.allowed or attempt)):
                break
            ratio = CAREFUL * math.sqrt(self.allowed / lost)
            step *= ratio if best else min(ratio, SHORTER)
        return best


def _lost(values: Float64, form: Form) -> float:
    """The sum of squared differences; infinite where a value does not fit into float32."""
    try:
        difference = values - form.values()
    except NotFiniteError:
        return math.inf
    return float(np.square(difference, out=difference).sum())
