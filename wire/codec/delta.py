"""Whole deltas: the tensors of a manifest, one after the other."""

import math
from collections.abc import Sequence
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from wire.codec.index_set import read_index_set, write_index_set
from wire.codec.matrix import (
    kept_entries,
    read_low_rank,
    read_raw,
    read_top_k,
    write_low_rank,
    write_raw,
    write_top_k,
)
from wire.codec.stream import Reader, Writer
from wire.delta import Delta, FloatArray, RowBlock, Tensor
from wire.errors import CodecError, NotFiniteError
from wire.manifest import ParameterSpec, Role
from wire.policy import CodecMode, CodecPolicy

__all__ = ["MAX_DECODED_VALUES", "decode_delta", "encode_delta"]

MAX_DECODED_VALUES = 1 << 24
"""A delta decodes to at most this many values (64 MiB of float32), whatever its header says."""


class Form(IntEnum):
    """Upper half of a tensor's first byte; the lower half is log2 of the bits a value."""

    NOTHING = 0
    RAW = 1
    TOP_K = 2
    LOW_RANK = 3


def encode_delta(delta: Delta, specs: Sequence[ParameterSpec], policy: CodecPolicy) -> bytes:
    """Encode a delta.

    A parameter that the delta lacks, or that is all zero, costs one byte. The low-rank mode is for
    tables; dense parameters then go as top-k.

    Args:
        delta: per name a RowBlock (role rows) or a full float32 array (role dense).
        specs: the manifest's federated parameters, in manifest order.
        policy: form, bits, density and rank.

    Raises:
        CodecError: the delta does not fit the specs.
        NotFiniteError: it holds NaN or infinity.
    """
    unknown = set(delta) - {spec.name for spec in specs}
    if unknown:
        raise CodecError(f"delta has {sorted(unknown)}, which the manifest does not federate")
    writer = Writer()
    for spec in specs:
        rows, values = _as_matrix(delta.get(spec.name), spec)
        _write_tensor(writer, spec, rows, values, policy)
    return writer.getvalue()


def decode_delta(payload: bytes, specs: Sequence[ParameterSpec]) -> dict[str, Tensor]:
    """Decode a delta and check everything against the specs.

    Returns:
        Every federated parameter: a RowBlock for the role rows (perhaps empty), a full array for
        dense.

    Raises:
        CodecError: malformed, truncated, trailing bytes, or not of these specs.
        NotFiniteError: a value decodes to NaN or infinity.
    """
    reader = Reader(payload)
    delta: dict[str, Tensor] = {}
    budget = MAX_DECODED_VALUES
    for spec in specs:
        rows, values = _read_tensor(reader, spec, budget)
        budget -= values.size
        if not np.isfinite(values).all():
            raise NotFiniteError(f"delta of {spec.name} is not finite")
        rowwise = spec.role is Role.ROWS
        delta[spec.name] = RowBlock(rows, values) if rowwise else values.reshape(spec.shape)
    reader.finish()
    return delta


def _write_tensor(
    writer: Writer,
    spec: ParameterSpec,
    rows: NDArray[np.int64],
    values: FloatArray,
    policy: CodecPolicy,
) -> None:
    form = _form(spec, policy)
    kept = kept_entries(values, policy.density) if form is Form.TOP_K else values != 0
    touched = kept.any(axis=1)
    if not touched.any():
        writer.byte(Form.NOTHING << 4)
        return
    bits = 1 if form is Form.RAW else policy.bits
    writer.byte(form << 4 | bits.bit_length() - 1)
    if spec.role is Role.ROWS:
        rows, values, kept = rows[touched], values[touched], kept[touched]
        write_index_set(writer, rows, spec.shape[0])
    if form is Form.RAW:
        write_raw(writer, values)
    elif form is Form.TOP_K:
        write_top_k(writer, values, kept, bits)
    else:
        write_low_rank(writer, values, policy.rank, bits)


def _read_tensor(
    reader: Reader, spec: ParameterSpec, budget: int
) -> tuple[NDArray[np.int64], FloatArray]:
    height, width = _matrix_shape(spec)
    head = reader.byte()
    form, bits = head >> 4, 1 << (head & 0x0F)
    if form not in tuple(Form) or bits > 8:
        raise CodecError(f"delta has an unknown form {head:#04x} for {spec.name}")
    if spec.role is not Role.ROWS and height * width > budget:
        raise CodecError(f"delta of {spec.name} is too large to decode")
    if form == Form.NOTHING:
        empty = 0 if spec.role is Role.ROWS else height
        return np.zeros(0, np.int64), np.zeros((empty, width), np.float32)
    if spec.role is Role.ROWS:
        rows = read_index_set(reader, height, budget // width)
    else:
        rows = np.arange(height)
    if form == Form.RAW:
        return rows, read_raw(reader, len(rows), width)
    if form == Form.TOP_K:
        return rows, read_top_k(reader, len(rows), width, bits)
    if bits == 1:
        raise CodecError("delta has a low-rank form of 1 bit; 2, 4 or 8 are known")
    return rows, read_low_rank(reader, len(rows), width, bits)


def _form(spec: ParameterSpec, policy: CodecPolicy) -> Form:
    if policy.mode is CodecMode.RAW:
        return Form.RAW
    if policy.mode is CodecMode.LOW_RANK and spec.role is Role.ROWS:
        return Form.LOW_RANK
    return Form.TOP_K


def _matrix_shape(spec: ParameterSpec) -> tuple[int, int]:
    """A dense parameter is one row per leading index, so that one coder serves both roles."""
    return spec.shape[0], math.prod(spec.shape[1:])


def _as_matrix(tensor: Tensor | None, spec: ParameterSpec) -> tuple[NDArray[np.int64], FloatArray]:
    height, width = _matrix_shape(spec)
    if tensor is None:
        return np.zeros(0, np.int64), np.zeros((0, width), np.float32)
    if isinstance(tensor, RowBlock) is not (spec.role is Role.ROWS):
        raise CodecError(f"delta of {spec.name} does not have the form of its role {spec.role}")
    if isinstance(tensor, RowBlock):
        rows, values = tensor.rows, tensor.values
        if values.shape != (len(rows), width):
            raise CodecError(f"delta of {spec.name} is {values.shape}; expected [n, {width}]")
        if len(rows) and not (rows[0] >= 0 and rows[-1] < height and (np.diff(rows) > 0).all()):
            raise CodecError(f"delta of {spec.name} has rows that are not increasing in the table")
    else:
        if tensor.shape != spec.shape:
            raise CodecError(f"delta of {spec.name} is {tensor.shape}; expected {spec.shape}")
        rows, values = np.arange(height), tensor.reshape(height, width)
    if not np.isfinite(values).all():
        raise NotFiniteError(f"delta of {spec.name} is not finite")
    return rows, values
