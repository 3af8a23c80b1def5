"""Whole deltas: the format's version, then the tensors of a manifest, one after the other."""

from collections.abc import Mapping, Sequence

import numpy as np

from wire.codec.stream import Reader, Writer
from wire.codec.tensor import read_tensor, write_multiples, write_tensor
from wire.delta import Delta, Tensor
from wire.errors import CodecError
from wire.manifest import ParameterSpec
from wire.policy import CodecPolicy

__all__ = [
    "CODEC_VERSION",
    "MAX_DECODED_VALUES",
    "MAX_DECODING_BYTES",
    "MAX_DECODING_BYTES_PER_BYTE",
    "decode_delta",
    "encode_and_decode",
    "encode_delta",
    "encode_multiples",
]

CODEC_VERSION = 1
VERSION_BITS = 4
MAX_DECODED_VALUES = 1 << 23
"""A delta decodes to at most this many values (32 MiB of float32), whatever its header says."""
MAX_DECODING_BYTES, MAX_DECODING_BYTES_PER_BYTE = 512 << 20, 128
"""Decoding takes at most so much memory, and so much more for each byte of the payload."""


def encode_delta(
    delta: Delta,
    specs: Sequence[ParameterSpec],
    policy: CodecPolicy,
    rng: np.random.Generator | None = None,
) -> bytes:
    """Encode a delta: the payload of ``encode_and_decode``."""
    return encode_and_decode(delta, specs, policy, rng)[0]


def encode_and_decode(
    delta: Delta,
    specs: Sequence[ParameterSpec],
    policy: CodecPolicy,
    rng: np.random.Generator | None = None,
) -> tuple[bytes, dict[str, Tensor]]:
    """Encode a delta, and say what a reader gets.

    A sender that keeps what was left out knows it without decoding its own payload.
    A parameter that the delta lacks, or of which nothing is sent, costs three bits.

    Args:
        delta: per name a RowBlock (role rows) or a full float32 array (role dense).
        specs: the manifest's federated parameters, in manifest order.
        policy: what to send and how.
        rng: for the modes that draw or round at random; None seeds from the operating system.

    Returns:
        The payload, and bit for bit what ``decode_delta`` makes of it.

    Raises:
        CodecError: the delta does not fit the specs, or would be too large to decode.
        NotFiniteError: it holds NaN or infinity.
    """
    rng = np.random.default_rng() if rng is None else rng
    writer = _started(delta, specs)
    decoded: dict[str, Tensor] = {}
    budget = MAX_DECODED_VALUES
    for spec in specs:
        tensor = delta.get(spec.name)
        decoded[spec.name], spent = write_tensor(writer, spec, tensor, policy, rng, budget)
        budget -= spent
    return writer.getvalue(), decoded


def encode_multiples(
    delta: Delta, specs: Sequence[ParameterSpec], exponents: Mapping[str, int]
) -> bytes:
    """Encode a delta whose entries are multiples of powers of two, without loss.

    The same delta gives the same bytes. A parameter that the delta lacks costs three bits.

    Args:
        delta: per name a RowBlock (role rows) or a full float32 array (role dense).
        specs: the manifest's federated parameters, in manifest order.
        exponents: for each name the exponent of 2, from -126 to 127.

    Raises:
        CodecError: the delta does not fit the specs, or an entry is not a multiple.
        NotFiniteError: it holds NaN or infinity.
    """
    writer = _started(delta, specs)
    for spec in specs:
        write_multiples(writer, spec, delta.get(spec.name), exponents[spec.name])
    return writer.getvalue()


def decode_delta(payload: bytes, specs: Sequence[ParameterSpec]) -> dict[str, Tensor]:
    """Decode a delta and check everything against the specs.

    Whatever the bytes are, this takes at most MAX_DECODING_BYTES (512 MiB) of memory and 128 bytes
    more for each byte of the payload, what is returned included, and less than 10 s of one core.
    Most of it is for a table of 8,388,608 rows of width 1, about 56 bytes a value; what devices
    send takes a few MB.

    Returns:
        Every federated parameter: a RowBlock for the role rows (perhaps empty), a full array for
        dense.

    Raises:
        CodecError: malformed, truncated, with trailing bytes, of another version of the format, or
            not of these specs.
        NotFiniteError: a value decodes to NaN or infinity.
    """
    reader = Reader(payload)
    version = reader.number(VERSION_BITS)
    if version != CODEC_VERSION:
        raise CodecError(
            f"delta has version {version} of the format; this software knows {CODEC_VERSION}"
        )
    delta: dict[str, Tensor] = {}
    budget = MAX_DECODED_VALUES
    for spec in specs:
        delta[spec.name], spent = read_tensor(reader, spec, budget)
        budget -= spent
    reader.finish()
    return delta


def _started(delta: Delta, specs: Sequence[ParameterSpec]) -> Writer:
    unknown = set(delta) - {spec.name for spec in specs}
    if unknown:
        raise CodecError(f"delta has {sorted(unknown)}, which the manifest does not federate")
    writer = Writer()
    writer.number(CODEC_VERSION, VERSION_BITS)
    return writer
