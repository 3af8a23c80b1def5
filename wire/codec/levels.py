"""Matrices whose entries are zero or one of a few evenly spaced magnitudes, with either sign.

Everything that is quantised travels as such a matrix: a block of rows, or the factors of one. What
is zero, and what is negative, are two index sets; a magnitude is ``base + code * step``. The codes
take a fixed number of bits each or a Golomb code, whichever is smaller.
"""

import struct
from bisect import bisect_left
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from wire.codec.golomb import golomb_bits, read_golomb, write_golomb
from wire.codec.index_set import index_set_bits, read_index_set, read_mask, write_index_set
from wire.codec.stream import Reader, Writer
from wire.delta import FloatArray
from wire.errors import NotFiniteError

__all__ = [
    "Codes",
    "Coding",
    "Levels",
    "coding_of",
    "narrowed",
    "read_codes",
    "round_scale",
    "write_codes",
]

Codes = NDArray[np.int64]

SCALE_BITS = 13
DROPPED_BITS = 18
LARGEST_SCALE = 0x1FDF
LARGEST = float(np.finfo(np.float32).max)
AS_FLOAT32, AS_INTEGER = struct.Struct("<f"), struct.Struct("<I")

CODING_BITS = 4
MOST_FIXED_BITS = 7
SPARSE = 8
DIVISORS = (2, 3, 4, 6, 8, 12, 16)
"""Of the Golomb codes that the codings after SPARSE stand for."""


class Coding(NamedTuple):
    """How codes are written.

    Attributes:
        bits: about how many they take, the number of the coding included.
        number: 0 if and only if all codes are zero.
    """

    bits: float
    number: int


@dataclass(frozen=True)
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
        if rows.all():
            return self
        return replace(self, kept=self.kept[rows])

    @cached_property
    def coding(self) -> Coding:
        """The coding of the codes: found once for the size and for the writing."""
        return coding_of(self.codes)

    def bits(self) -> float:
        """About how many bits it takes."""
        count, negative = len(self.codes), int(np.count_nonzero(self.negative))
        signs = 1 + min(count, index_set_bits(negative, count))
        scales = SCALE_BITS * (2 if self.coding.number else 1)
        return index_set_bits(count, self.kept.size) + signs + scales + self.coding.bits

    def write(self, writer: Writer) -> None:
        """Write it; its shape is written elsewhere."""
        write_index_set(writer, self.kept.ravel().nonzero()[0], self.kept.size)
        _write_signs(writer, self.negative)
        writer.number(_scale_code(self.base), SCALE_BITS)
        write_codes(writer, self.codes, self.coding)
        if self.coding.number:
            writer.number(_scale_code(self.step), SCALE_BITS)

    @classmethod
    def read(cls, reader: Reader, rows: int, width: int) -> Self:
        """Read what ``write`` wrote of a matrix [rows, width]."""
        kept = read_mask(reader, rows * width)
        count = int(np.count_nonzero(kept))
        negative = _read_signs(reader, count)
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
    with np.errstate(over="ignore"):
        rounded = values.astype(np.float32)
    if not np.isfinite(rounded).all():
        raise NotFiniteError("delta has a value that is too large for float32")
    return rounded


def round_scale(value: float) -> float:
    """The number nearest to a positive one that a scale can be: to within 1.6 %, unless tiny.

    A scale is a float32 without its sign and all but the first five bits of its mantissa.
    """
    return _scale_of(_scale_code(value))


def coding_of(codes: Codes) -> Coding:
    """The coding that takes the fewest bits for int64 [n], each at least 0."""
    total = int(codes.sum())
    if not total:
        return Coding(CODING_BITS, 0)
    width, present = int(codes.max()).bit_length(), int(np.count_nonzero(codes))
    found = [(index_set_bits(present, len(codes)) + total, SPARSE)]
    if width <= MOST_FIXED_BITS:
        found.append((len(codes) * width, width))
    # The best divisor is about ln 2 times the mean (see index_set).
    best = min(bisect_left(DIVISORS, 0.6 * total / len(codes)), len(DIVISORS) - 1)
    found.append((golomb_bits(codes, DIVISORS[best]), SPARSE + 1 + best))
    bits, number = min(found)
    return Coding(CODING_BITS + bits, number)


def write_codes(writer: Writer, codes: Codes, coding: Coding) -> None:
    """Write int64 [n] in their coding."""
    _, number = coding
    writer.number(number, CODING_BITS)
    if number <= MOST_FIXED_BITS:
        writer.codes(codes, number)
    elif number == SPARSE:
        write_index_set(writer, codes.nonzero()[0], len(codes))
        writer.unary(codes[codes > 0] - 1)
    else:
        write_golomb(writer, codes, DIVISORS[number - SPARSE - 1])


def read_codes(reader: Reader, count: int) -> tuple[int, Codes]:
    """Read what write_codes wrote: the number of the coding, and int64 [count]."""
    coding = reader.number(CODING_BITS)
    if coding <= MOST_FIXED_BITS:
        return coding, reader.codes(count, coding)
    if coding > SPARSE:
        return coding, read_golomb(reader, count, DIVISORS[coding - SPARSE - 1])
    codes = np.zeros(count, np.int64)
    places = read_index_set(reader, count, count)
    codes[places] = reader.unary(len(places)) + 1
    return coding, codes


def _write_signs(writer: Writer, negative: NDArray[np.bool_]) -> None:
    """A bit each, after a 0; or the set of the negative ones, after a 1."""
    count = len(negative)
    uneven = index_set_bits(int(np.count_nonzero(negative)), count) < count
    writer.number(uneven, 1)
    if uneven:
        write_index_set(writer, negative.nonzero()[0], count)
    else:
        writer.bits(negative)


def _read_signs(reader: Reader, count: int) -> NDArray[np.bool_]:
    if reader.number(1):
        return read_mask(reader, count)
    return reader.bits(count).astype(np.bool_)


def _scale_code(value: float) -> int:
    pattern: int
    (pattern,) = AS_INTEGER.unpack(AS_FLOAT32.pack(min(value, LARGEST)))
    return min(pattern + (1 << DROPPED_BITS - 1) >> DROPPED_BITS, LARGEST_SCALE)


def _scale_of(code: int) -> float:
    value: float
    (value,) = AS_FLOAT32.unpack(AS_INTEGER.pack(code << DROPPED_BITS))
    return value


def _read_scale(reader: Reader) -> float:
    code = reader.number(SCALE_BITS)
    if code > LARGEST_SCALE:
        raise NotFiniteError("delta has a scale that is not finite")
    return _scale_of(code)
