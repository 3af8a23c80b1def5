"""Bits in and out: a writer that only appends, a reader that never reads past the end.

An encoded delta is one stream of bits, the most significant of each byte first, padded with zeros
to a whole byte at its end only. Whatever has many members is read and written as an array.
"""

import numpy as np
from numpy.typing import NDArray

from wire.errors import CodecError

__all__ = ["Reader", "Writer"]

Bits = NDArray[np.uint8]
MAX_CODE_BITS = 32


class Writer:
    """Collects the portions of an encoded delta."""

    def __init__(self) -> None:
        self._parts: list[Bits] = []

    def number(self, value: int, width: int) -> None:
        """One unsigned integer of ``width`` bits, 0 to 32."""
        raw = np.frombuffer(value.to_bytes(MAX_CODE_BITS // 8, "big"), np.uint8)
        self._parts.append(np.unpackbits(raw)[MAX_CODE_BITS - width :])

    def bits(self, flags: NDArray[np.bool_] | Bits) -> None:
        """Bits as they come."""
        self._parts.append(flags.view(np.uint8))

    def codes(self, codes: NDArray[np.integer], width: int) -> None:
        """Unsigned integers of ``width`` bits each, 0 to 32."""
        if width:
            octets = codes.astype(">u4").view(np.uint8).reshape(-1, MAX_CODE_BITS // 8)
            self._parts.append(np.unpackbits(octets, axis=1)[:, -width:].ravel())

    def unary(self, numbers: NDArray[np.int64]) -> None:
        """Each number as so many zeros and a one."""
        ends = np.cumsum(numbers + 1)
        flags = np.zeros(int(ends[-1]) if len(ends) else 0, np.uint8)
        flags[ends - 1] = 1
        self._parts.append(flags)

    def getvalue(self) -> bytes:
        """All that was written."""
        return np.packbits(np.concatenate(self._parts)).tobytes()


class Reader:
    """Reads what a Writer wrote, and refuses everything else.

    Every method raises CodecError where the bits run out. Nothing takes more memory than a fixed
    multiple of the bits that are there.
    """

    def __init__(self, raw: bytes) -> None:
        self._raw, self._at = np.frombuffer(raw, np.uint8), 0

    @property
    def left(self) -> int:
        """Bits not yet read."""
        return 8 * len(self._raw) - self._at

    def number(self, width: int) -> int:
        """One unsigned integer of ``width`` bits."""
        first, last = self._advance(width)
        octets = self._raw[first >> 3 : -(-last // 8)]
        return int.from_bytes(octets.tobytes(), "big") >> (-last % 8) & (1 << width) - 1

    def bits(self, count: int) -> Bits:
        """``count`` bits, each 0 or 1."""
        first, last = self._advance(count)
        return self._flags(first, last)

    def codes(self, count: int, width: int) -> NDArray[np.int64]:
        """``count`` unsigned integers of ``width`` bits each, 0 to 32."""
        if not width:
            return np.zeros(count, np.int64)
        flags = self.bits(count * width).reshape(count, width)
        octet = width <= 8
        wide = np.zeros((count, 8 if octet else MAX_CODE_BITS), np.uint8)
        wide[:, -width:] = flags
        packed = np.packbits(wide, axis=1)
        return packed.view(np.uint8 if octet else ">u4").ravel().astype(np.int64)

    def unary(self, count: int, most: int | None = None) -> NDArray[np.int64]:
        """``count`` numbers, each as so many zeros and a one.

        Args:
            count: how many.
            most: the largest sum that they can have, where one is known.
        """
        window = self.left if most is None else min(self.left, count + most)
        ones = np.flatnonzero(self._flags(self._at, self._at + window))[:count]
        if len(ones) < count:
            raise CodecError(f"delta is truncated: {len(ones)} of {count} unary numbers end")
        self._advance(int(ones[-1]) + 1 if count else 0)
        return np.diff(ones, prepend=-1) - 1

    def finish(self) -> None:
        """Refuse trailing bytes, and padding that is not zero."""
        if self.left >= 8:
            raise CodecError(f"delta has {self.left // 8} trailing bytes")
        if self.number(self.left):
            raise CodecError("delta has padding bits that are not zero")

    def _advance(self, count: int) -> tuple[int, int]:
        if count > self.left:
            raise CodecError(f"delta is truncated: {count} bits wanted, {self.left} left")
        first, self._at = self._at, self._at + count
        return first, self._at

    def _flags(self, first: int, last: int) -> Bits:
        octets = self._raw[first >> 3 : -(-last // 8)]
        return np.unpackbits(octets)[first & 7 : (first & 7) + last - first]
