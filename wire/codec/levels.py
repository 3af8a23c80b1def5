"""Matrices whose entries are zero or one of a few evenly spaced magnitudes, with either sign.

Everything that is quantised travels as such a matrix: a block of rows, or the factors of one. What
is zero, and what is negative, are two index sets; a magnitude is ``base + code * step``. The codes
take a fixed number of bits each or a Golomb code, whichever is smaller.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from wire.codec.golomb import golomb_bits, read_golomb, write_golomb
from wire.codec.index_set import index_set_bits, read_mask, write_index_set
from wire.codec.stream import Reader, Writer
from wire.delta import FloatArray
from wire.errors import NotFiniteError

__all__ = ["Codes", "Levels", "codes_bits", "narrowed", "read_codes", "round_scale", "write_codes"]

Codes = NDArray[np.int64]

MANTISSA_BITS = 4
SCALE_BITS = 8 + MANTISSA_BITS
LARGEST_SCALE = (0xFF << MANTISSA_BITS) - 1
LARGEST = float(np.finfo(np.float32).max)
_DROPPED_BITS = 32 - 1 - SCALE_BITS

CODING_BITS = 4
MOST_FIXED_BITS = 7
DIVISORS = (1, 2, 3, 4, 6, 8, 12, 16)
"""Of the Golomb codes that the codings after the fixed ones stand for."""


@dataclass(frozen=True, slots=True)
class Levels:
    """A quantised matrix [h, w] of which k entries are not zero.

    Attributes:
        kept: bool [h, w], what is not zero.
        negative: bool [k], in the order of the entries.
        codes: int64 [k], each at least 0.
        base: magnitude of code 0; a number that a scale can be, as is ``step``.
        step: distance of one code to the next.
    """

    kept: NDArray[np.bool_]
    negative: NDArray[np.bool_]
    codes: Codes
    base: float
    step: float

    def values(self, row_scales: NDArray[np.float64] | None = None) -> FloatArray:
        """The matrix, float32 [h, w]; with ``row_scales``, float64 [h], each row times its own."""
        magnitudes = np.multiply(self.codes, self.step, dtype=np.float64)
        magnitudes += self.base
        np.negative(magnitudes, out=magnitudes, where=self.negative)
        if row_scales is not None:
            magnitudes *= np.repeat(row_scales, np.count_nonzero(self.kept, axis=1))
        values = np.zeros(self.kept.shape, np.float32)
        values[self.kept] = narrowed(magnitudes)
        return values

    def touched(self) -> NDArray[np.bool_]:
        """Which rows are not all zero: bool [h]."""
        return np.asarray(self.kept.any(axis=1))

    def of_rows(self, rows: NDArray[np.bool_]) -> Self:
        """The matrix without some rows, which must be zero."""
        return type(self)(self.kept[rows], self.negative, self.codes, self.base, self.step)

    def bits(self) -> float:
        """About how many bits it takes."""
        count, negative = len(self.codes), int(np.count_nonzero(self.negative))
        sets = index_set_bits(count, self.kept.size) + index_set_bits(negative, count)
        return sets + 2 * SCALE_BITS + codes_bits(self.codes)

    def write(self, writer: Writer) -> None:
        """Write it; its shape is written elsewhere."""
        write_index_set(writer, np.flatnonzero(self.kept), self.kept.size)
        write_index_set(writer, np.flatnonzero(self.negative), len(self.negative))
        writer.number(_scale_code(self.base), SCALE_BITS)
        if write_codes(writer, self.codes):
            writer.number(_scale_code(self.step), SCALE_BITS)

    @classmethod
    def read(cls, reader: Reader, rows: int, width: int) -> Self:
        """Read what ``write`` wrote of a matrix [rows, width]."""
        kept = read_mask(reader, rows * width)
        count = int(np.count_nonzero(kept))
        negative = read_mask(reader, count)
        base = _read_scale(reader)
        coding, codes = read_codes(reader, count)
        step = _read_scale(reader) if coding else 0.0
        return cls(kept.reshape(rows, width), negative, codes, base, step)


def narrowed(values: NDArray[np.float64]) -> FloatArray:
    """As float32.

    What a decoder computes is computed in float64, where a product of two float32 is exact, and
    rounded to float32 once at the end: so it is the same on every machine.

    Raises:
        NotFiniteError: a value is too large.
    """
    if values.size and not (values.max() <= LARGEST and values.min() >= -LARGEST):
        raise NotFiniteError("delta has a value that is too large for float32")
    return values.astype(np.float32)


def round_scale(value: float) -> float:
    """The number nearest to a positive one that a scale can be: to within 3.2 %, unless tiny.

    A scale is a float32 without its sign and all but the first four bits of its mantissa.
    """
    return _scale_of(_scale_code(value))


def codes_bits(codes: Codes) -> int:
    """How many bits write_codes takes."""
    return CODING_BITS + _best_coding(codes)[0]


def write_codes(writer: Writer, codes: Codes) -> int:
    """Write int64 [n], each at least 0, in the coding that takes the fewest bits.

    Returns:
        The number of the coding: 0 if and only if all codes are zero.
    """
    _, coding = _best_coding(codes)
    writer.number(coding, CODING_BITS)
    if coding <= MOST_FIXED_BITS:
        writer.codes(codes, coding)
    else:
        write_golomb(writer, codes, DIVISORS[coding - MOST_FIXED_BITS - 1])
    return coding


def read_codes(reader: Reader, count: int) -> tuple[int, Codes]:
    """Read what write_codes wrote: the number of the coding, and int64 [count]."""
    coding = reader.number(CODING_BITS)
    if coding <= MOST_FIXED_BITS:
        return coding, reader.codes(count, coding)
    return coding, read_golomb(reader, count, DIVISORS[coding - MOST_FIXED_BITS - 1])


def _best_coding(codes: Codes) -> tuple[int, int]:
    """Bits and number of the smallest coding."""
    width = int(codes.max(initial=0)).bit_length()
    if not width:
        return 0, 0
    # The best divisor is about ln 2 times the mean (see index_set); its neighbours are tried too.
    guess = int(np.searchsorted(DIVISORS, 0.7 * float(codes.mean())))
    near = range(max(0, guess - 1), min(len(DIVISORS), guess + 2))
    found = [(golomb_bits(codes, DIVISORS[at]), MOST_FIXED_BITS + 1 + at) for at in near]
    if width <= MOST_FIXED_BITS:
        found.append((len(codes) * width, width))
    return min(found)


def _scale_code(value: float) -> int:
    pattern = int(np.float32(min(value, LARGEST)).view(np.uint32))
    return min(pattern + (1 << _DROPPED_BITS - 1) >> _DROPPED_BITS, LARGEST_SCALE)


def _scale_of(code: int) -> float:
    return float(np.uint32(code << _DROPPED_BITS).view(np.float32))


def _read_scale(reader: Reader) -> float:
    code = reader.number(SCALE_BITS)
    if code > LARGEST_SCALE:
        raise NotFiniteError("delta has a scale that is not finite")
    return _scale_of(code)
