"""Patches: from one shared state to another, exactly.

Of every published version the aggregator and its devices share a state bit for bit: the version's
parameters, each rounded to a multiple of a power of two. So the difference between any two shared
states is made of such multiples too, and float32 adds it without rounding: whichever patches a
device took, it ends with the same bits, and no error adds up. A patch is an encoded delta; one
against nothing begins with zeros.
"""

from collections.abc import Mapping, MutableMapping, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from wire.codec import MAX_DECODED_VALUES, decode_delta, encode_multiples
from wire.codec.index_set import read_index_set, write_index_set
from wire.codec.stream import Reader, Writer
from wire.delta import FloatArray, RowBlock, Tensor
from wire.errors import CodecError
from wire.manifest import ParameterSpec, Role

__all__ = [
    "apply_patch",
    "decode_row_numbers",
    "encode_patch",
    "encode_row_numbers",
    "encode_rows",
    "finer",
    "on_grid",
    "rows_at_once",
]

MAX_ROWS_VALUES = 1 << 20
"""Of an answer to a request for rows: making one takes about 85 bytes a value."""

A = TypeVar("A", bound=FloatArray)
State = Mapping[str, FloatArray]


def on_grid(values: FloatArray, exponent: int) -> FloatArray:
    """The nearest multiples of 2**exponent, ties to even; never -0."""
    step = 2.0**exponent
    return np.asarray(np.rint(values / step) * step + 0.0, np.float32)


def finer(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    """For each name the exponent of the finer of two grids: what is on either is on that."""
    return {name: min(exponent, other[name]) for name, exponent in one.items()}


def encode_patch(
    old: State | None, new: State, specs: Sequence[ParameterSpec], exponents: Mapping[str, int]
) -> bytes:
    """Encode what leads from one shared state to another.

    Args:
        old: float32 arrays in the specs' shapes; None for zeros.
        new: likewise.
        specs: the manifest's federated parameters, in manifest order.
        exponents: of the finer of the two grids, for each name.

    Raises:
        CodecError: it would be too large to decode, or float32 cannot add it exactly.
    """
    delta: dict[str, Tensor] = {}
    values = 0
    for spec in specs:
        before, after = None if old is None else old[spec.name], new[spec.name]
        touched = None if spec.role is Role.DENSE else np.flatnonzero(_changed(before, after))
        rows = slice(None) if touched is None else touched
        values += spec.size if touched is None else len(touched) * _width(spec)
        if values > MAX_DECODED_VALUES:
            raise CodecError(f"a patch of more than {MAX_DECODED_VALUES:,} values is not decodable")
        difference = np.array(after[rows]) if before is None else after[rows] - before[rows]
        if before is not None and not np.array_equal(before[rows] + difference, after[rows]):
            raise CodecError(f"the change of {spec.name} is not exact in float32")
        delta[spec.name] = difference if touched is None else RowBlock(touched, difference)
    return encode_multiples(delta, specs, exponents)


def encode_rows(
    state: State,
    rows: NDArray[np.int64],
    specs: Sequence[ParameterSpec],
    exponents: Mapping[str, int],
) -> bytes:
    """Encode some rows of every table of a shared state; without rows, its dense parameters.

    Args:
        state: float32 arrays in the specs' shapes.
        rows: int64 [n], increasing.
        specs: the manifest's federated parameters, in manifest order.
        exponents: of its grid, for each name.

    Raises:
        CodecError: these are too many rows, or it would be too large to decode.
    """
    if len(rows) > rows_at_once(specs):
        raise CodecError(f"{len(rows)} rows are too many; at most {rows_at_once(specs)} at once")
    if sum(spec.size for spec in specs if spec.role is Role.DENSE) > MAX_DECODED_VALUES:
        raise CodecError("the dense parameters are too large to decode")
    chosen: dict[str, Tensor] = {
        spec.name: np.array(state[spec.name])
        if spec.role is Role.DENSE
        else RowBlock(rows, state[spec.name][rows])
        for spec in specs
        if (spec.role is Role.ROWS) is bool(len(rows))
    }
    return encode_multiples(chosen, specs, exponents)


def rows_at_once(specs: Sequence[ParameterSpec]) -> int:
    """How many rows of every table can be asked for at once: of 1,048,576 values, at least one."""
    width = sum(_width(spec) for spec in specs if spec.role is Role.ROWS)
    return max(1, MAX_ROWS_VALUES // max(1, width))


def encode_row_numbers(rows: NDArray[np.int64], items: int) -> bytes:
    """Encode int64 [n], increasing, each from 0 to ``items`` - 1: a request for those rows."""
    writer = Writer()
    write_index_set(writer, rows, items)
    return writer.getvalue()


def decode_row_numbers(raw: bytes, items: int) -> NDArray[np.int64]:
    """Decode a request for rows.

    Raises:
        CodecError: malformed, truncated, with trailing bytes, or of more than 8,388,608 rows.
    """
    reader = Reader(raw)
    rows = read_index_set(reader, items, MAX_DECODED_VALUES)
    reader.finish()
    return rows


def apply_patch(
    state: MutableMapping[str, A], payload: bytes, specs: Sequence[ParameterSpec]
) -> None:
    """Turn the shared state that a patch was made for into the next one, in place.

    Args:
        state: float32 arrays in the specs' shapes; written to.
        payload: the patch.
        specs: the manifest's federated parameters, in manifest order.

    Raises:
        CodecError: it is malformed or not of these specs; nothing was written.
    """
    for name, tensor in decode_delta(payload, specs).items():
        if isinstance(tensor, RowBlock):
            state[name][tensor.rows] += tensor.values
        else:
            state[name][...] += tensor


def _width(spec: ParameterSpec) -> int:
    return spec.size // spec.shape[0]


def _changed(before: FloatArray | None, after: FloatArray) -> NDArray[np.bool_]:
    different = after != (0.0 if before is None else before)
    return np.asarray(different.reshape(len(after), -1).any(axis=1))
