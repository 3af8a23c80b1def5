"""The forms that a matrix of touched rows can take on the wire.

A form is a pair of functions over the same bytes: ``write`` takes the values of the touched rows,
float32 [n, width], and ``read`` gives them back with the form's own error. Rows are named outside,
except where the form itself drops rows (top-k).
"""

import numpy as np
from numpy.typing import NDArray

from wire.codec.index_set import read_index_set, write_index_set
from wire.codec.quantiser import read_magnitudes, read_uniform, write_magnitudes, write_uniform
from wire.codec.stream import Reader, Writer
from wire.delta import FloatArray

__all__ = [
    "MAX_RANK",
    "kept_entries",
    "read_low_rank",
    "read_raw",
    "read_top_k",
    "write_low_rank",
    "write_raw",
    "write_top_k",
]

MAX_RANK = 64


def write_raw(writer: Writer, values: FloatArray) -> None:
    """Every value as float32, little-endian: for debugging and for comparison."""
    writer.octets(values.astype("<f4").tobytes())


def read_raw(reader: Reader, rows: int, width: int) -> FloatArray:
    """Read what write_raw wrote: float32 [rows, width]."""
    values = np.frombuffer(reader.octets(4 * rows * width), "<f4")
    return values.astype(np.float32).reshape(rows, width)


def kept_entries(values: FloatArray, density: float) -> NDArray[np.bool_]:
    """Which entries top-k keeps: the largest ``ceil(density * size)`` magnitudes, zeros never.

    Returns:
        bool [n, width].
    """
    magnitudes = np.abs(values).ravel()
    keep = min(int(np.ceil(density * magnitudes.size)), int(np.count_nonzero(magnitudes)))
    mask = np.zeros(magnitudes.size, np.bool_)
    if keep:
        mask[np.argpartition(magnitudes, -keep)[-keep:]] = True
    return mask.reshape(values.shape)


def write_top_k(writer: Writer, values: FloatArray, kept: NDArray[np.bool_], bits: int) -> None:
    """The kept entries: their positions inside the touched rows, then sign and magnitude."""
    write_index_set(writer, np.flatnonzero(kept), kept.size)
    write_magnitudes(writer, values[kept], bits)


def read_top_k(reader: Reader, rows: int, width: int, bits: int) -> FloatArray:
    """Read what write_top_k wrote: float32 [rows, width], zero where nothing was kept."""
    size = rows * width
    positions = read_index_set(reader, size, size)
    values = np.zeros(size, np.float32)
    values[positions] = read_magnitudes(reader, len(positions), bits)
    return values.reshape(rows, width)


def write_low_rank(writer: Writer, values: FloatArray, rank: int, bits: int) -> None:
    """The leading singular components (Eckart and Young, 1936), one quantised pair after the other.

    Each left vector is fitted to the right one as the reader will see it, and each component to
    what the ones before left over, so later vectors absorb the rounding of earlier ones. The
    quantiser is a projection, so no component adds error.
    """
    rank = min(rank, *values.shape)
    writer.varint(rank)
    left_over = values.astype(np.float64)
    # The Gram matrix is width x width: cheap, whatever the number of rows.
    _, vectors = np.linalg.eigh(left_over.T @ left_over)
    for vector in vectors.T[::-1][:rank]:
        right = write_uniform(writer, vector, bits)
        energy = float(right @ right)
        fitted = left_over @ right / energy if energy > 0 else np.zeros(len(values))
        left = write_uniform(writer, fitted, bits)
        left_over -= np.outer(left, right)


def read_low_rank(reader: Reader, rows: int, width: int, bits: int) -> FloatArray:
    """Read what write_low_rank wrote: float32 [rows, width]."""
    rank = reader.varint(min(MAX_RANK, rows, width))
    values = np.zeros((rows, width), np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        # Outer products one by one, not a matrix product: the same bits on every machine.
        for _ in range(rank):
            right = read_uniform(reader, width, bits)
            values += np.outer(read_uniform(reader, rows, bits), right)
    return values
