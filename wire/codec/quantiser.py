"""Scalar quantisers: float32 arrays to codes of 1 to 8 bits and back."""

import numpy as np
from numpy.typing import NDArray

from wire.codec.stream import Reader, Writer
from wire.delta import FloatArray

__all__ = ["read_magnitudes", "read_uniform", "write_magnitudes", "write_uniform"]


def write_uniform(writer: Writer, values: NDArray[np.floating], bits: int) -> FloatArray:
    """Write values of any sign on 2**bits evenly spaced levels, about from minimum to maximum.

    The levels are scaled so that what is read is a projection of the values: its error is never
    larger than the values themselves, which error feedback relies on.

    Args:
        writer: where to.
        values: floats [n], n at least 1.
        bits: 2, 4 or 8.

    Returns:
        What read_uniform will give: float32 [n].
    """
    low, high = float(values.min()), float(values.max())
    steps = (1 << bits) - 1
    codes = _nearest(values, low, high, steps)
    low, high = _projected(values, codes, low, high, steps)
    writer.float32(low)
    writer.float32(high)
    writer.codes(codes, bits)
    return _levels(codes, low, high, steps)


def read_uniform(reader: Reader, count: int, bits: int) -> FloatArray:
    """Read what write_uniform wrote: float32 [count]."""
    low, high = reader.float32(), reader.float32()
    return _levels(reader.codes(count, bits), low, high, (1 << bits) - 1)


def write_magnitudes(writer: Writer, values: FloatArray, bits: int) -> None:
    """Write values that are far from zero, such as the largest of many: a sign and a magnitude.

    The 2**(bits - 1) magnitudes are evenly spaced between about the mean of the smallest and the
    mean of the largest 1/2**(bits - 1) of them, so that one bit is sign times mean (Bernstein et
    al., "signSGD", 2018, with the scale of Karimireddy et al., "Error Feedback Fixes SignSGD",
    2019).

    Args:
        writer: where to.
        values: float32 [n], n at least 1.
        bits: 1, 2, 4 or 8.
    """
    magnitudes = np.abs(values)
    ordered = np.sort(magnitudes)
    steps = (1 << bits - 1) - 1
    share = -(-len(values) // (steps + 1))
    low, high = float(ordered[:share].mean()), float(ordered[-share:].mean())
    codes = _nearest(magnitudes, low, high, steps)
    low, high = _projected(magnitudes, codes, low, high, steps)
    writer.float32(low)
    writer.bits(values < 0)
    if steps:
        writer.float32(high)
        writer.codes(codes, bits - 1)


def read_magnitudes(reader: Reader, count: int, bits: int) -> FloatArray:
    """Read what write_magnitudes wrote: float32 [count]."""
    steps = (1 << bits - 1) - 1
    low = reader.float32()
    signs = np.where(reader.bits(count), np.float32(-1), np.float32(1))
    if not steps:
        return signs * np.float32(low)
    high = reader.float32()
    return signs * _levels(reader.codes(count, bits - 1), low, high, steps)


def _nearest(
    values: NDArray[np.floating], low: float, high: float, steps: int
) -> NDArray[np.int64]:
    if high <= low or not steps:
        return np.zeros(len(values), np.int64)
    # In float64: the width of the range itself may not fit in float32.
    position = (values.astype(np.float64) - low) / (high - low) * steps
    return np.rint(np.clip(position, 0, steps)).astype(np.int64)


def _projected(
    values: NDArray[np.floating], codes: NDArray[np.int64], low: float, high: float, steps: int
) -> tuple[float, float]:
    """The range scaled by <values, levels> / <levels, levels>, as float32 will hold it."""
    levels = _levels(codes, low, high, steps).astype(np.float64)
    energy = float(levels @ levels)
    gain = float(values.astype(np.float64) @ levels) / energy if energy > 0 else 1.0
    return float(np.float32(low * gain)), float(np.float32(high * gain))


def _levels(codes: NDArray[np.int64], low: float, high: float, steps: int) -> FloatArray:
    return (low + (high - low) / max(steps, 1) * codes).astype(np.float32)
