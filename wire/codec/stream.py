"""Bytes in and out: a writer that only appends, a reader that never reads past the end."""

import math
import struct

import numpy as np
from numpy.typing import NDArray

from wire.errors import CodecError, NotFiniteError

__all__ = ["Reader", "Writer"]

MAX_VARINT_BYTES = 5


class Writer:
    """Collects the portions of an encoded delta."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def byte(self, value: int) -> None:
        """One byte, 0 to 255."""
        self._parts.append(bytes((value,)))

    def varint(self, value: int) -> None:
        """An unsigned LEB128 integer."""
        out = bytearray()
        while value > 0x7F:
            out.append(value & 0x7F | 0x80)
            value >>= 7
        out.append(value)
        self._parts.append(bytes(out))

    def float32(self, value: float) -> None:
        """Four bytes, little-endian."""
        self._parts.append(struct.pack("<f", value))

    def octets(self, value: bytes) -> None:
        """Bytes as they are."""
        self._parts.append(value)

    def bits(self, flags: NDArray[np.bool_]) -> None:
        """Bits, most significant first, padded with zeros to a whole byte."""
        self._parts.append(np.packbits(flags).tobytes())

    def codes(self, codes: NDArray[np.integer], width: int) -> None:
        """Unsigned integers of ``width`` bits each (0 to 31), most significant bit first."""
        if width:
            shifts = np.arange(width - 1, -1, -1, dtype=np.int64)
            self.bits((codes.astype(np.int64)[:, None] >> shifts & 1).astype(np.bool_).ravel())

    def getvalue(self) -> bytes:
        """All that was written."""
        return b"".join(self._parts)


class Reader:
    """Reads what a Writer wrote, and refuses everything else.

    Every method raises CodecError where the bytes run out or are not canonical.
    """

    def __init__(self, raw: bytes) -> None:
        self._raw, self._at = raw, 0

    @property
    def left(self) -> int:
        """Bytes not yet read."""
        return len(self._raw) - self._at

    def octets(self, count: int) -> bytes:
        """The next ``count`` bytes."""
        if count > self.left:
            raise CodecError(f"delta is truncated: {count} bytes wanted, {self.left} left")
        self._at += count
        return self._raw[self._at - count : self._at]

    def byte(self) -> int:
        """One byte."""
        return self.octets(1)[0]

    def varint(self, most: int) -> int:
        """An unsigned LEB128 integer in its shortest form, at most ``most``."""
        value = 0
        for position in range(MAX_VARINT_BYTES):
            byte = self.byte()
            value |= (byte & 0x7F) << 7 * position
            if byte < 0x80:
                if byte == 0 and position:
                    raise CodecError("delta has an overlong integer")
                if value > most:
                    raise CodecError(f"delta has a count of {value}; at most {most} here")
                return value
        raise CodecError("delta has an overlong integer")

    def float32(self) -> float:
        """A finite float32."""
        value: float = struct.unpack("<f", self.octets(4))[0]
        if not math.isfinite(value):
            raise NotFiniteError("delta has a scale that is not finite")
        return value

    def bits(self, count: int) -> NDArray[np.uint8]:
        """``count`` bits as 0 and 1; the padding must be zero."""
        packed = np.frombuffer(self.octets(-(-count // 8)), np.uint8)
        flags = np.unpackbits(packed)
        if flags[count:].any():
            raise CodecError("delta has padding bits that are not zero")
        return flags[:count]

    def codes(self, count: int, width: int) -> NDArray[np.int64]:
        """``count`` unsigned integers of ``width`` bits."""
        if not width:
            return np.zeros(count, np.int64)
        weights = 1 << np.arange(width - 1, -1, -1, dtype=np.int64)
        return self.bits(count * width).reshape(count, width) @ weights

    def unary(self, count: int, most_zeros: int) -> NDArray[np.int64]:
        """``count`` unary numbers (zeros before each one), which sum to at most ``most_zeros``."""
        window = min(self.left, -(-(count + most_zeros) // 8))
        flags = np.unpackbits(np.frombuffer(self._raw, np.uint8, window, self._at))
        ones = np.flatnonzero(flags)[:count]
        if len(ones) < count:
            raise CodecError("delta is truncated inside a row index")
        self.bits(int(ones[-1]) + 1 if count else 0)
        return np.diff(ones, prepend=-1) - 1

    def finish(self) -> None:
        """Refuse trailing bytes."""
        if self.left:
            raise CodecError(f"delta has {self.left} trailing bytes")
