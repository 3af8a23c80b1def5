"""Sets of integers below a known bound: Rice-coded gaps or a bitmap, whichever is smaller.

Gaps between members of a random set of density p are geometric, for which Rice coding is close to
the entropy. Quotients (unary) and remainders (fixed width) go in two streams, so that both
directions are array operations. The parameter is that of Kiely, "Selecting the Golomb Parameter in
Rice Coding", IPN Progress Report 42-159 (2004), eq. 17: ``1 + floor(log2(ln(phi - 1) / ln(1 -
p)))``.
"""

import math

import numpy as np
from numpy.typing import NDArray

from wire.codec.stream import Reader, Writer
from wire.errors import CodecError

__all__ = ["read_index_set", "write_index_set"]

BITMAP = 0xFF
EVERY = 0xFE
MAX_RICE = 31
_LOG_GOLDEN_RATIO = math.log((math.sqrt(5) - 1) / 2)


def write_index_set(writer: Writer, members: NDArray[np.int64], universe: int) -> None:
    """Write a set.

    Args:
        writer: where to.
        members: int64 [n], strictly increasing, each in [0, universe).
        universe: the bound, which the reader must know too.
    """
    count = len(members)
    writer.varint(count)
    if count == 0:
        return
    if count == universe:
        writer.byte(EVERY)
        return
    gaps = np.diff(members, prepend=-1) - 1
    parameter = _rice_parameter(count, universe)
    quotients = gaps >> parameter
    unary_bits = int(quotients.sum()) + count
    if -(-unary_bits // 8) + -(-count * parameter // 8) < -(-universe // 8):
        writer.byte(parameter)
        flags = np.zeros(unary_bits, np.bool_)
        flags[np.cumsum(quotients + 1) - 1] = True
        writer.bits(flags)
        writer.codes(gaps & (1 << parameter) - 1, parameter)
    else:
        writer.byte(BITMAP)
        flags = np.zeros(universe, np.bool_)
        flags[members] = True
        writer.bits(flags)


def read_index_set(reader: Reader, universe: int, most: int) -> NDArray[np.int64]:
    """Read a set: int64 [n], strictly increasing, n at most ``most``.

    Raises:
        CodecError: it is not one, or has a member outside [0, universe).
    """
    count = reader.varint(min(most, universe))
    if count == 0:
        return np.zeros(0, np.int64)
    form = reader.byte()
    if form == EVERY:
        if count != universe:
            raise CodecError("delta names every row but counts fewer")
        return np.arange(universe, dtype=np.int64)
    if form == BITMAP:
        members = np.flatnonzero(reader.bits(universe))
        if len(members) != count:
            raise CodecError(f"delta counts {count} members and marks {len(members)}")
        return members
    if form > MAX_RICE:
        raise CodecError(f"delta has an unknown index form {form}")
    quotients = reader.unary(count, universe >> form)
    gaps = (quotients << form) + reader.codes(count, form)
    members = np.cumsum(gaps + 1) - 1
    if members[-1] >= universe:
        raise CodecError(f"delta has the index {members[-1]}; the bound is {universe}")
    return members


def _rice_parameter(count: int, universe: int) -> int:
    parameter = 1 + math.floor(math.log2(_LOG_GOLDEN_RATIO / math.log1p(-count / universe)))
    return min(max(parameter, 0), MAX_RICE)
