"""Golomb codes for numbers of which small ones are likely, as arrays.

Golomb, "Run-Length Encodings", IEEE Transactions on Information Theory 12(3), 1966. A number is
written by its quotient and its remainder for a divisor M: the quotient in unary, the remainder in
the fewest bits that tell M remainders apart ("truncated binary": the first 2**b - M of them take
b - 1 bits, the others b). All quotients come first, then all remainders without the last bit of the
long ones, then those bits: so each portion is one array operation in either direction.
"""

import numpy as np
from numpy.typing import NDArray

from wire.codec.stream import Reader, Writer

__all__ = ["golomb_bits", "read_golomb", "write_golomb"]

Numbers = NDArray[np.int64]


def golomb_bits(numbers: Numbers, divisor: int) -> int:
    """How many bits the numbers take."""
    if divisor == 1:
        return int(numbers.sum()) + len(numbers)
    quotients = numbers // divisor
    width, short = _remainder_widths(divisor)
    long = int(np.count_nonzero(numbers - divisor * quotients >= short))
    return int(quotients.sum()) + len(numbers) * (1 + width) + long


def write_golomb(writer: Writer, numbers: Numbers, divisor: int) -> None:
    """Write int64 [n], each at least 0."""
    if divisor == 1:
        writer.unary(numbers)
        return
    quotients = numbers // divisor
    remainders = numbers - divisor * quotients
    width, short = _remainder_widths(divisor)
    long = remainders >= short
    shifted = remainders + short
    writer.unary(quotients)
    writer.codes(np.where(long, shifted >> 1, remainders), width)
    writer.bits((shifted[long] & 1).astype(np.uint8))


def read_golomb(reader: Reader, count: int, divisor: int) -> Numbers:
    """Read what write_golomb wrote: int64 [count]."""
    quotients = reader.unary(count)
    if divisor == 1:
        return quotients
    width, short = _remainder_widths(divisor)
    remainders = reader.codes(count, width)
    long = (remainders >= short).nonzero()[0]
    remainders[long] = 2 * remainders[long] + reader.bits(len(long)) - short
    quotients *= divisor
    quotients += remainders
    return quotients


def _remainder_widths(divisor: int) -> tuple[int, int]:
    """Bits of a short remainder, and how many are short; for a divisor above 1.

    Where all have the same width, they count as long, with one bit apart from the others.
    """
    width = (divisor - 1).bit_length()
    return width - 1, (1 << width) - divisor
