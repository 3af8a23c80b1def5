"""What every decoder of the wire must hold to, whatever bytes it is given.

The first byte of an input says which decoder gets the rest: see TARGETS.
"""

import random
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from wire.codec import decode_delta, encode_delta
from wire.codec.delta import CODEC_VERSION, MAX_DECODING_BYTES, MAX_DECODING_BYTES_PER_BYTE
from wire.codec.stream import Writer
from wire.codec.tensor import MAX_DRAWN
from wire.delta import RowBlock, Tensor
from wire.errors import CodecError, MessageError, WireError
from wire.manifest import ParameterSpec, Role
from wire.messages import (
    MAX_PARSING_BYTES,
    Announcement,
    Metric,
    Outcome,
    Receipt,
    Refusal,
    Status,
    StatusState,
    Update,
)
from wire.policy import CodecMode, CodecPolicy, TrainingPolicy

__all__ = ["MAX_SEED_BYTES", "TARGETS", "check", "first_inputs", "mutated", "traced"]

Specs = tuple[ParameterSpec, ...]
Message = Update | Receipt | Announcement | Status

MAX_SECONDS = 10.0
"""Of one core, for one input; the slowest known takes about one."""
MAX_SEED_BYTES = 4096
MAX_SEED_VALUES = 1 << 20
MAX_ENCODED_AGAIN = 1 << 14

LEVELS, SCALED, FACTORS, DRAWN_ENTRIES = 3, 4, 5, 7
"""Numbers of forms on the wire."""

TASK = "00112233445566778899aabbccddeeff"
RAW = CodecPolicy(mode=CodecMode.RAW)


def _table(height: int, width: int, name: str = "item") -> ParameterSpec:
    return ParameterSpec(name, Role.ROWS, (height, width))


def _dense(*shape: int, name: str = "head") -> ParameterSpec:
    return ParameterSpec(name, Role.DENSE, shape)


SPECS: tuple[Specs, ...] = (
    (_table(40, 5),),
    (_dense(3, 4), _dense(7, name="bias"), _dense(2, 3, 2, name="filters")),
    (_table(300, 8), _dense(8), _table(50, 1, name="item_bias")),
    (_table(1, 1 << 22),),
    (_table(1 << 22, 1),),
    (_table(1 << 24, 64),),
    (_table(1 << 11, 1 << 20), _dense(1 << 10, 1 << 11)),
)
MESSAGES: tuple[type[Message], ...] = (Update, Receipt, Announcement, Status)


@dataclass(frozen=True, slots=True)
class Target:
    """A decoder.

    Attributes:
        decode: it.
        refusal: the only error that it may raise.
        most_bytes: memory for an input of so many bytes, in bytes.
        check_decoded: raises AssertionError where what was decoded breaks a law.
    """

    decode: Callable[[bytes], object]
    refusal: type[WireError]
    most_bytes: Callable[[int], int]
    check_decoded: Callable[[object], None]


def check(data: bytes) -> None:
    """Give an input to its decoder; raises whatever shows that the decoder is wrong."""
    if not data:
        return
    target = TARGETS[data[0] % len(TARGETS)]
    decoded, peak, taken_s = traced(lambda: _decoded(target, data[1:]))
    most = target.most_bytes(len(data) - 1)
    assert peak <= most, f"{len(data)} bytes took {peak} bytes of memory; at most {most}"
    assert taken_s <= MAX_SECONDS, f"{len(data)} bytes took {taken_s:.1f} s"
    if decoded is not None:
        target.check_decoded(decoded)


def traced(work: Callable[[], object]) -> tuple[object, int, float]:
    """What a function returns, the peak of its memory in bytes, and its CPU time in seconds."""
    tracemalloc.start()
    started = time.process_time()
    try:
        result = work()
        taken_s = time.process_time() - started
        return result, tracemalloc.get_traced_memory()[1], taken_s
    finally:
        tracemalloc.stop()


def _decoded(target: Target, raw: bytes) -> object:
    try:
        return target.decode(raw)
    except target.refusal:
        return None


def _delta_target(specs: Specs) -> Target:
    def check_decoded(decoded: object) -> None:
        assert isinstance(decoded, dict)
        _check_delta(decoded, specs)

    return Target(
        decode=lambda raw: decode_delta(raw, specs),
        refusal=CodecError,
        most_bytes=lambda size: MAX_DECODING_BYTES + MAX_DECODING_BYTES_PER_BYTE * size,
        check_decoded=check_decoded,
    )


def _check_delta(decoded: dict[str, Tensor], specs: Specs) -> None:
    assert list(decoded) == [spec.name for spec in specs]
    for spec in specs:
        _check_tensor(decoded[spec.name], spec)
    sizes = [t.values.size if isinstance(t, RowBlock) else t.size for t in decoded.values()]
    if sum(sizes) > MAX_ENCODED_AGAIN:
        return
    again = decode_delta(encode_delta(decoded, specs, RAW), specs)
    for name, tensor in decoded.items():
        _check_same(tensor, again[name])


def _check_tensor(tensor: Tensor, spec: ParameterSpec) -> None:
    values = tensor.values if isinstance(tensor, RowBlock) else tensor
    assert values.dtype == np.float32
    assert np.isfinite(values).all()
    assert isinstance(tensor, RowBlock) is (spec.role is Role.ROWS)
    if isinstance(tensor, RowBlock):
        rows = tensor.rows
        assert rows.dtype == np.int64
        assert values.shape == (len(rows), spec.shape[1])
        assert not len(rows) or (rows[0] >= 0 and rows[-1] < spec.shape[0])
        assert (np.diff(rows) > 0).all()
    else:
        assert tensor.shape == spec.shape


def _check_same(one: Tensor, other: Tensor) -> None:
    if isinstance(one, RowBlock):
        assert isinstance(other, RowBlock)
        touched = one.values.any(axis=1)
        assert np.array_equal(one.rows[touched], other.rows)
        one, other = one.values[touched], other.values
    assert isinstance(other, np.ndarray)
    assert np.array_equal(one, other)


def _message_target(kind: type[Message]) -> Target:
    return Target(
        decode=kind.decode,
        refusal=MessageError,
        most_bytes=lambda _: MAX_PARSING_BYTES,
        check_decoded=_check_message,
    )


def _check_message(decoded: object) -> None:
    assert isinstance(decoded, MESSAGES)
    again = type(decoded).decode(decoded.encode())
    if isinstance(decoded, Update):
        # Metrics are rounded when they are encoded, so only the second time changes nothing.
        assert isinstance(again, Update)
        assert again.payload == decoded.payload
        decoded, again = again, Update.decode(again.encode())
    assert again == decoded
    if isinstance(decoded, Announcement):
        assert type(decoded.codec.bits) is int


TARGETS = (*map(_delta_target, SPECS), *map(_message_target, MESSAGES))


@cache
def first_inputs() -> list[bytes]:
    """Real messages and the fullest headers, each of at most MAX_SEED_BYTES; always the same."""
    inputs = [
        bytes([number]) + payload
        for number, specs in enumerate(SPECS)
        for payload in (*_payloads(specs), *_fullest(specs))
    ]
    inputs += [
        bytes([len(SPECS) + MESSAGES.index(type(message))]) + message.encode()
        for message in _messages()
    ]
    return [data for data in inputs if len(data) <= MAX_SEED_BYTES]


def _payloads(specs: Specs) -> Iterator[bytes]:
    small = all(spec.size < 1 << 12 for spec in specs)
    delta = _few_values(specs)
    for mode in CodecMode:
        # Whole rows of a wide table make no seed, and take long.
        if small or mode not in (CodecMode.RAW, CodecMode.HALF):
            for scales in (False, True):
                policy = CodecPolicy(mode=mode, density=0.3 if small else 1e-6, row_scales=scales)
                yield encode_delta(delta, specs, policy, np.random.default_rng(1))


def _fullest(specs: Specs) -> Iterator[bytes]:
    """Headers that ask for all there is, in the fewest bytes; some ask for too much."""
    height, width = specs[0].shape[0], specs[0].size // specs[0].shape[0]
    rank, drawn = min(width, 16), min(height * width, MAX_DRAWN)
    for form in (LEVELS, SCALED, FACTORS, DRAWN_ENTRIES):
        writer = Writer()
        writer.number(CODEC_VERSION, 4)
        writer.number(form, 3)
        if form == DRAWN_ENTRIES:
            writer.number(0, 32)
            writer.count(drawn, height * width)
            writer.number(LEVELS, 3)
        writer.count(*(2 * [drawn if form == DRAWN_ENTRIES else height]))
        if form in (SCALED, FACTORS):
            writer.number(0 if form == SCALED else rank - 1, 4)
        sizes = {FACTORS: (rank * width, height * rank), DRAWN_ENTRIES: (drawn,)}
        for size in sizes.get(form, (height * width,)):
            _all_ones(writer, size)
        writer.number(0, 3 * (len(specs) - 1))
        yield writer.getvalue()


def _all_ones(writer: Writer, size: int) -> None:
    """A matrix of which no entry is zero or negative, the scale is 1 and all codes are 0."""
    writer.count(size, size)
    writer.number(1, 1)
    writer.count(0, size)
    writer.number(127 << 5, 13)
    writer.number(0, 4)


def _few_values(specs: Specs) -> dict[str, Tensor]:
    """A delta that is not zero in some rows, and in a few entries of wide ones."""
    rng = np.random.default_rng(0)
    delta: dict[str, Tensor] = {}
    for spec in specs:
        if spec.role is Role.DENSE:
            if spec.size < 1 << 12:
                delta[spec.name] = rng.normal(size=spec.shape).astype(np.float32)
            continue
        height, width = spec.shape
        rows = np.unique(rng.integers(0, height, max(1, min(20, MAX_SEED_VALUES // width))))
        values = np.zeros((len(rows), width), np.float32)
        values[:, : min(width, 64)] = rng.normal(size=(len(rows), min(width, 64)))
        delta[spec.name] = RowBlock(rows, values)
    return delta


def _messages() -> Iterator[Message]:
    for payload in (b"", bytes(100)):
        yield Update(
            task=TASK,
            sequence=40,
            base_version=1800,
            examples=106,
            payload=payload,
            metrics=dict.fromkeys(Metric, 0.25),
        )
    yield Receipt(task=TASK, sequence=9, outcome=Outcome.ACCEPTED, version=4)
    yield Receipt(
        task=TASK, sequence=9, outcome=Outcome.REJECTED, version=4, reason=Refusal.TOO_STALE
    )
    for mode in (CodecMode.AUTO, CodecMode.LOW_RANK):
        yield Announcement(
            task=TASK,
            version=2**40,
            sha256="ab" * 32,
            size_bytes=2**33,
            paused=False,
            training=TrainingPolicy(),
            codec=CodecPolicy(mode=mode),
        )
    yield Status(state=StatusState.ONLINE, agent="0.1.0", runtime="onnx")


def mutated(inputs: Sequence[bytes], rng: random.Random) -> bytes:
    """One of some inputs, changed in one to four ways."""
    data = bytearray(rng.choice(inputs))
    for _ in range(rng.randint(1, 4)):
        rng.choice((_flip, _overwrite, _truncate, _extend, _splice))(data, inputs, rng)
    return bytes(data)


def _flip(data: bytearray, _: Sequence[bytes], rng: random.Random) -> None:
    if len(data) > 1:
        data[rng.randrange(1, len(data))] ^= 1 << rng.randrange(8)


def _overwrite(data: bytearray, _: Sequence[bytes], rng: random.Random) -> None:
    first = rng.randint(1, max(1, len(data)))
    length = rng.randint(1, 8)
    data[first : first + length] = rng.choice((bytes(length), b"\xff" * length, _some(length, rng)))


def _truncate(data: bytearray, _: Sequence[bytes], rng: random.Random) -> None:
    del data[rng.randint(1, max(1, len(data))) :]


def _extend(data: bytearray, _: Sequence[bytes], rng: random.Random) -> None:
    data += _some(rng.randint(1, 40), rng)


def _splice(data: bytearray, inputs: Sequence[bytes], rng: random.Random) -> None:
    other = rng.choice(inputs)
    data[rng.randint(1, max(1, len(data))) :] = other[rng.randrange(len(other)) :]


def _some(length: int, rng: random.Random) -> bytes:
    return bytes(rng.getrandbits(8) for _ in range(length))
