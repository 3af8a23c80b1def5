"""Which form a sender takes for a block of rows, under a policy."""

import numpy as np

from wire.codec.auto import form_within
from wire.codec.fixed import low_rank, quantised, top_entries, top_rows
from wire.codec.forms import Form, Half, Raw
from wire.codec.levels import Levels
from wire.delta import FloatArray
from wire.errors import CodecError, NotFiniteError
from wire.policy import CodecMode, CodecPolicy

__all__ = ["form_for", "multiples"]


LARGEST_MULTIPLE = 2.0**31
"""A larger one takes more bits than a float32, and need not be an integer of the machine."""


def form_for(
    values: FloatArray,
    policy: CodecPolicy,
    *,
    table: bool,
    universe: int,
    rng: np.random.Generator,
) -> Form:
    """The form for a block of rows.

    Args:
        values: float32 [h, w], finite, not all zero.
        policy: what the operator wants.
        table: whether these are rows of a table; low-rank and ``all_rows`` are for those.
        universe: how many rows there are to choose these from.
        rng: for the choices of unbiased rounding.
    """
    if policy.mode is CodecMode.AUTO:
        all_rows = policy.all_rows and table
        return form_within(values, policy.nmse, universe=universe, all_rows=all_rows)
    try:
        form = _fixed(values, policy, table=table, rng=rng)
        form.values()
    except NotFiniteError:
        # A level above the largest float32, which rounding up can give.
        return Raw(values)
    return form


def multiples(values: FloatArray, exponent: int) -> Form:
    """The form for a block of multiples of a power of two, which loses nothing.

    Args:
        values: float32 [h, w], not all zero.
        exponent: of 2; from -126 to 127.

    Raises:
        CodecError: an entry is not a multiple of it.
    """
    step = 2.0**exponent
    steps = np.abs(values, dtype=np.float64) / step
    if not np.array_equal(steps, np.rint(steps)):
        raise CodecError(f"delta has entries that are not multiples of 2^{exponent}")
    if steps.max() >= LARGEST_MULTIPLE:
        return Raw(values)
    kept = steps > 0.0
    codes = steps[kept].astype(np.int64)
    levels = Levels(kept, values[kept] < 0, codes - 1, step, step)
    return levels if levels.bits() < Raw.ENTRY_BITS * values.size else Raw(values)


def _fixed(
    values: FloatArray, policy: CodecPolicy, *, table: bool, rng: np.random.Generator
) -> Form:
    match policy.mode:
        case CodecMode.RAW:
            return Raw(values)
        case CodecMode.HALF:
            return Half.of(values)
        case CodecMode.LOW_RANK if table:
            return low_rank(values, policy)
        case CodecMode.ROWS:
            kept = top_rows(values, policy.density)
        case CodecMode.RANDOM_ENTRIES | CodecMode.RANDOM_ROWS:
            # Rounded at random, what the device did not touch looks like what it did.
            kept = np.ones(values.shape, np.bool_) if policy.unbiased else values != 0
        case _:
            kept = top_entries(values, policy.density)
    return quantised(values, kept, policy, rng)
