"""Bits in and out: a writer that only appends, a reader that never reads past the end.

An encoded delta is one stream of bits, the most significant of each byte first, padded with zeros
to a whole byte at its end only. Whatever has many members is read and written as an array.
"""

import numpy as np
from numpy.typing import NDArray

from wire.errors import CodecError

__all__ = ["Reader", "Writer", "gaps"]

Bits = NDArray[np.uint8]
MAX_CODE_BITS = 32


def gaps(members: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many integers are missing before each of some increasing ones, from 0 on."""
    missing = members.copy()
    missing[1:] -= members[:-1] + 1
    return missing


class Writer:
    """Collects the portions of an encoded delta."""

    def __init__(self) -> None:
        self._parts: list[Bits] = []
        self._number, self._width = 0, 0

    def number(self, value: int, width: int) -> None:
        """One unsigned integer of ``width`` bits."""
        self._number = self._number << width | value
        self._width += width

    def count(self, value: int, most: int) -> None:
        """One integer from 0 to ``most``, in fewer bits where it is small.

        First its length in bits, in as many bits as the length of ``most`` needs, then the number
        without its leading one.
        """
        length = value.bit_length()
        self.number(length, most.bit_length().bit_length())
        if length:
            self.number(value - (1 << length - 1), length - 1)

    def bits(self, flags: NDArray[np.bool_] | Bits) -> None:
        """Bits as they come."""
        self._add(flags.view(np.uint8))

    def codes(self, codes: NDArray[np.integer], width: int) -> None:
        """Unsigned integers of ``width`` bits each, 0 to 32."""
        if width:
            octet = width <= 8
            octets = codes.astype(np.uint8 if octet else ">u4").view(np.uint8)
            octets = octets.reshape(-1, 1 if octet else MAX_CODE_BITS // 8)
            self._add(np.unpackbits(octets, axis=1)[:, -width:].ravel())

    def unary(self, numbers: NDArray[np.int64]) -> None:
        """Each number as so many zeros and a one."""
        ends = (numbers + 1).cumsum()
        flags = np.zeros(int(ends[-1]) if len(ends) else 0, np.uint8)
        flags[ends - 1] = 1
        self._add(flags)

    def getvalue(self) -> bytes:
        """All that was written."""
        self._add(np.zeros(0, np.uint8))
        return np.packbits(np.concatenate(self._parts)).tobytes()

    def _add(self, bits: Bits) -> None:
        # Numbers in a row go together: an array for each would take most of the time.
        if self._width:
            raw = self._number.to_bytes(-(-self._width // 8), "big")
            self._parts.append(np.unpackbits(np.frombuffer(raw, np.uint8))[-self._width :])
            self._number, self._width = 0, 0
        self._parts.append(bits)


class Reader:
    """Reads what a Writer wrote, and refuses everything else.

    Every method raises CodecError where the bits run out. Time and memory of all of them together
    are at most a fixed multiple of the bits that are there.
    """

    def __init__(self, raw: bytes) -> None:
        self._raw, self._at = raw, 0
        self._bits = np.unpackbits(np.frombuffer(raw, np.uint8))
        # The same as booleans, of which NumPy finds the true ones several times as fast.
        self._flags = self._bits.view(np.bool_)
        self._size = len(self._bits)

    @property
    def left(self) -> int:
        """Bits not yet read."""
        return self._size - self._at

    def number(self, width: int) -> int:
        """One unsigned integer of ``width`` bits."""
        first, last = self._advance(width)
        octets = self._raw[first >> 3 : -(-last // 8)]
        return int.from_bytes(octets, "big") >> (-last % 8) & (1 << width) - 1

    def count(self, most: int) -> int:
        """One integer from 0 to ``most``, as Writer.count writes it."""
        length = self.number(most.bit_length().bit_length())
        if length > most.bit_length():
            raise CodecError(f"delta has a count of {length} bits; at most {most} here")
        value = (1 << length - 1) + self.number(length - 1) if length else 0
        if value > most:
            raise CodecError(f"delta has a count of {value}; at most {most} here")
        return value

    def bits(self, count: int) -> Bits:
        """``count`` bits, each 0 or 1; not to be written to."""
        first, last = self._advance(count)
        return self._bits[first:last]

    def codes(self, count: int, width: int) -> NDArray[np.int64]:
        """``count`` unsigned integers of ``width`` bits each, 0 to 32."""
        if not width:
            return np.zeros(count, np.int64)
        if width == 1:
            return self.bits(count).astype(np.int64)
        flags = self.bits(count * width).reshape(count, width)
        octet = width <= 8
        wide = np.zeros((count, 8 if octet else MAX_CODE_BITS), np.uint8)
        wide[:, -width:] = flags
        packed = np.packbits(wide, axis=1)
        return packed.view(np.uint8 if octet else ">u4").ravel().astype(np.int64)

    def unary(self, count: int) -> NDArray[np.int64]:
        """``count`` numbers, each as so many zeros and a one."""
        window = 4 * count + 64
        ones = self._flags[self._at : self._at + window].nonzero()[0][:count]
        while len(ones) < count and window < self.left:
            window *= 4
            ones = self._flags[self._at : self._at + window].nonzero()[0][:count]
        if len(ones) < count:
            raise CodecError(f"delta is truncated: {len(ones)} of {count} unary numbers end")
        self._advance(int(ones[-1]) + 1 if count else 0)
        return gaps(ones)

    def finish(self) -> None:
        """Refuse trailing bytes, and padding that is not zero."""
        if self.left >= 8:
            raise CodecError(f"delta has {self.left // 8} trailing bytes")
        if self.number(self.left):
            raise CodecError("delta has padding bits that are not zero")

    def _advance(self, count: int) -> tuple[int, int]:
        first, last = self._at, self._at + count
        if last > self._size:
            raise CodecError(f"delta is truncated: {count} bits wanted, {self.left} left")
        self._at = last
        return first, last
