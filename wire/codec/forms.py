"""What a block of rows, a matrix [h, w], can be on the wire: as it is, quantised, or as factors.

A form is what a reader gets, so ``values`` is the same on both sides. A sender makes one by its
constructors and asks for its size before it writes.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from wire.codec.levels import Codes, Levels, coding_of, narrowed, read_codes, write_codes
from wire.codec.stream import Reader, Writer
from wire.delta import FloatArray
from wire.errors import CodecError, NotFiniteError

__all__ = ["FRACTIONS", "SMALLEST_SCALE", "Factors", "Form", "Half", "Raw", "Scaled", "row_scales"]

RANK_BITS = 4
MAX_FACTOR_VALUES = 1 << 23
"""The right one of two factors has at most this many values, however wide the rows are."""

PORTION_VALUES = 1 << 20

SMALLEST_SCALE = 255
FRACTIONS = np.array((1.0, 0x1AE89FA / (1 << 25), 0x16A09E6 / (1 << 25), 0x1306FE0 / (1 << 25)))
"""The float32 nearest to 2 ** (-n / 4)."""


class Form(Protocol):
    """A block of rows as it travels."""

    def values(self) -> FloatArray:
        """What a reader gets: float32 [h, w].

        Raises:
            NotFiniteError: a value is too large.
        """
        ...

    def touched(self) -> NDArray[np.bool_]:
        """Which rows are not all zero: bool [h]."""
        ...

    def of_rows(self, rows: NDArray[np.bool_]) -> Self:
        """The block without some rows, which must be zero."""
        ...

    def bits(self) -> float:
        """About how many bits it takes."""
        ...

    def write(self, writer: Writer) -> None:
        """Write it; its shape is written elsewhere."""
        ...

    @classmethod
    def read(cls, reader: Reader, rows: int, width: int) -> Self:
        """Read a block [rows, width]."""
        ...


@dataclass(frozen=True, slots=True)
class Raw:
    """Every value as float32: for debugging, and for what nothing else can hold.

    Attributes:
        block: float32 [h, w].
    """

    ENTRY_BITS: ClassVar[int] = 32

    block: FloatArray

    def values(self) -> FloatArray:
        """See Form."""
        if not np.isfinite(self.block).all():
            raise NotFiniteError("delta has a value that is not finite")
        return self.block

    def touched(self) -> NDArray[np.bool_]:
        """See Form."""
        return np.asarray(self.block.any(axis=1))

    def of_rows(self, rows: NDArray[np.bool_]) -> Self:
        """See Form."""
        return type(self)(self.block[rows])

    def bits(self) -> float:
        """See Form."""
        return self.ENTRY_BITS * self.block.size

    def write(self, writer: Writer) -> None:
        """See Form."""
        writer.codes(self.block.ravel().view(np.uint32), 32)

    @classmethod
    def read(cls, reader: Reader, rows: int, width: int) -> Self:
        """See Form."""
        words = reader.codes(rows * width, 32).astype(np.uint32)
        return cls(words.view(np.float32).reshape(rows, width))


@dataclass(frozen=True, slots=True)
class Half(Raw):
    """Every value as float16; ``block`` is float32 all the same."""

    ENTRY_BITS: ClassVar[int] = 16

    @classmethod
    def of(cls, values: FloatArray) -> Self:
        """Round float32 [h, w]; what is too large becomes infinite."""
        with np.errstate(over="ignore"):
            return cls(values.astype(np.float16).astype(np.float32))

    def write(self, writer: Writer) -> None:
        """See Form."""
        writer.codes(self.block.astype(np.float16).ravel().view(np.uint16), 16)

    @classmethod
    def read(cls, reader: Reader, rows: int, width: int) -> Self:
        """See Form."""
        words = reader.codes(rows * width, 16).astype(np.uint16)
        return cls(words.view(np.float16).astype(np.float32).reshape(rows, width))


@dataclass(frozen=True, slots=True)
class Scaled:
    """A quantised matrix of which each row has a scale of its own.

    Attributes:
        levels: the rows before they are scaled.
        scales: int64 [h], in quarters of an octave below 1: from 0 to 255.
    """

    levels: Levels
    scales: Codes

    def values(self) -> FloatArray:
        """See Form."""
        return self.levels.values(row_scales(self.scales))

    def touched(self) -> NDArray[np.bool_]:
        """See Form."""
        return self.levels.touched()

    def of_rows(self, rows: NDArray[np.bool_]) -> Self:
        """See Form."""
        return type(self)(self.levels.of_rows(rows), self.scales[rows])

    def bits(self) -> float:
        """See Form."""
        return self.levels.bits() + coding_of(self.scales).bits

    def write(self, writer: Writer) -> None:
        """See Form."""
        write_codes(writer, self.scales, coding_of(self.scales))
        self.levels.write(writer)

    @classmethod
    def read(cls, reader: Reader, rows: int, width: int) -> Self:
        """See Form."""
        _, scales = read_codes(reader, rows)
        if scales.max(initial=0) > SMALLEST_SCALE:
            raise CodecError(f"delta has a row scale of {scales.max()}; at most {SMALLEST_SCALE}")
        return cls(Levels.read(reader, rows, width), scales)


@dataclass(frozen=True)
class Factors:
    """The product of two quantised matrices.

    Attributes:
        left: [h, rank].
        right: [rank, w].
    """

    left: Levels
    right: Levels

    def values(self) -> FloatArray:
        """See Form."""
        return self._values

    @cached_property
    def _values(self) -> FloatArray:
        left, right = self.left.values(), self.right.values().astype(np.float64)
        values = np.zeros((len(left), right.shape[1]), np.float32)
        portion = max(1, PORTION_VALUES // right.shape[1])
        for start in range(0, len(left), portion):
            rows = slice(start, start + portion)
            values[rows] = narrowed(_product(left[rows].astype(np.float64), right))
        return values

    def touched(self) -> NDArray[np.bool_]:
        """See Form."""
        return self.left.touched()

    def of_rows(self, rows: NDArray[np.bool_]) -> Self:
        """See Form."""
        return self if rows.all() else type(self)(self.left.of_rows(rows), self.right)

    def bits(self) -> float:
        """See Form."""
        return self.left.bits() + self.right.bits() + RANK_BITS

    def write(self, writer: Writer) -> None:
        """See Form."""
        writer.number(self.right.kept.shape[0] - 1, RANK_BITS)
        self.right.write(writer)
        self.left.write(writer)

    @classmethod
    def read(cls, reader: Reader, rows: int, width: int) -> Self:
        """See Form."""
        rank = reader.number(RANK_BITS) + 1
        if rank > width:
            raise CodecError(f"delta has a rank of {rank} for rows of {width}")
        if rank * width > MAX_FACTOR_VALUES:
            raise CodecError(f"delta has a factor of {rank} by {width}, too large to decode")
        right = Levels.read(reader, rank, width)
        return cls(Levels.read(reader, rows, rank), right)


def row_scales(codes: Codes) -> NDArray[np.float64]:
    """What the rows are multiplied by: float64 [h]."""
    fractions = FRACTIONS[codes % len(FRACTIONS)]
    return np.asarray(np.ldexp(fractions, -(codes // len(FRACTIONS))))


def _product(left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    # One outer product after the other: the order of the sum, from zero, is part of the format.
    values = np.zeros((len(left), right.shape[1]))
    product = np.empty_like(values)
    for column, row in zip(left.T, right, strict=True):
        values += np.multiply(column[:, None], row, out=product)
    return values
