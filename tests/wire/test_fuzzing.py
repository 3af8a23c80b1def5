"""The fuzzer's target, for a few seconds; and the inputs known to take the most memory."""

import contextlib
import random

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.wire.fuzzing import MAX_SECONDS, TARGETS, check, first_inputs, mutated, traced
from tests.wire.test_codec_refusals import (
    DRAWN_ENTRIES,
    FACTORS,
    LEVELS,
    ONE,
    SCALED,
    Numbers,
    all_ones,
    count,
    every_row,
    message,
)
from wire.codec import decode_delta
from wire.codec.delta import (
    MAX_DECODED_VALUES,
    MAX_DECODING_BYTES,
    MAX_DECODING_BYTES_PER_BYTE,
)
from wire.errors import CodecError, MessageError, WireError
from wire.manifest import ParameterSpec, Role
from wire.messages import MAX_MESSAGE_BYTES, MAX_PARSING_BYTES, Announcement, Update
from wire.policy import CodecPolicy, TrainingPolicy

MOST = MAX_DECODED_VALUES
DRAWN = 1 << 20
LONG = MAX_MESSAGE_BYTES - 100
"""Bytes that fit into a message with room for a header."""
BITS = 8 * LONG
ONES = b"\xff" * LONG + bytes(2)
"""As many unary numbers, and a scale of zero."""

EMPTY: dict[int, object] = {0: 1, 1: bytes(16), 2: 1, 3: 0, 4: 10, 5: {}, 6: b""}


def test_every_decoder_has_inputs_to_start_from_that_decode() -> None:
    decoded = set()
    for data in first_inputs():
        check(data)
        with contextlib.suppress(WireError):
            TARGETS[data[0]].decode(data[1:])
            decoded.add(data[0])
    assert decoded == set(range(len(TARGETS)))


@given(st.randoms(use_true_random=False))
@settings(max_examples=600, deadline=None)
def test_a_changed_message_is_decoded_or_refused_by_name(rng: random.Random) -> None:
    check(mutated(first_inputs(), rng))


@given(st.integers(0, len(TARGETS) - 1), st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_decoded_or_refused_by_name(number: int, raw: bytes) -> None:
    check(bytes([number]) + raw)


def decoded_or_refused(payload: bytes, height: int, width: int, role: Role) -> str:
    try:
        decode_delta(payload, (ParameterSpec("item", role, (height, width)),))
    except CodecError as error:
        return str(error)
    return ""


def entries(number: int, height: int, width: int) -> Numbers:
    return [DRAWN_ENTRIES, (0, 32), *count(number, height * width), LEVELS, *every_row(number)]


def factors(rank: int, height: int, width: int) -> Numbers:
    right, left = all_ones(rank * width), all_ones(height * rank)
    return [FACTORS, *every_row(height), (rank - 1, 4), *right, *left]


def sparse(size: int) -> Numbers:
    """Codes that are each a unary number."""
    return [*every_row(size), (1, 1), *count(0, size), ONE, (8, 4), *every_row(size)]


def ends_in_ones(numbers: Numbers) -> bool:
    return numbers[-1] != (0, 4)


@pytest.mark.parametrize("role", [Role.ROWS, Role.DENSE])
@pytest.mark.parametrize(
    ("height", "width", "numbers", "says"),
    [
        (MOST, 1, [LEVELS, *every_row(MOST), *all_ones(MOST)], ""),
        (MOST, 1, [SCALED, *every_row(MOST), (0, 4), *all_ones(MOST)], ""),
        (MOST // 64, 64, [SCALED, *every_row(MOST // 64), (0, 4), *all_ones(MOST)], ""),
        (MOST, 1, factors(1, MOST, 1), ""),
        (16, MOST // 16, factors(16, 16, MOST // 16), ""),
        (MOST // 16, 16, factors(16, MOST // 16, 16), ""),
        (1, MOST, factors(16, 1, MOST), "too large"),
        (1, MOST, factors(2, 1, MOST), "too large"),
        (1 << 11, 1 << 20, [*entries(DRAWN, 1 << 11, 1 << 20), *all_ones(DRAWN)], "too large"),
        (1 << 15, 1 << 15, [*entries(DRAWN, 1 << 15, 1 << 15), *all_ones(DRAWN)], "too large"),
        (1 << 24, 64, [*entries(DRAWN, 1 << 24, 64), *all_ones(DRAWN)], "too large"),
        (MOST, 1, [LEVELS, *every_row(MOST), *sparse(MOST)], "unary"),
        (BITS, 1, [LEVELS, *every_row(BITS), *sparse(BITS)], ""),
        (BITS, 1, [SCALED, *every_row(BITS), (0, 4), *sparse(BITS)], ""),
        (BITS, 1, [SCALED, *every_row(BITS), (8, 4), *every_row(BITS)], "truncated"),
        (2 * BITS, 1, [LEVELS, *count(BITS, 2 * BITS)], "truncated"),
    ],
)
def test_the_inputs_that_take_the_most_stay_within_the_stated_bounds(
    role: Role, height: int, width: int, numbers: Numbers, says: str
) -> None:
    payload = message(*numbers) + (ONES if ends_in_ones(numbers) else b"")
    text, peak, taken_s = traced(lambda: decoded_or_refused(payload, height, width, role))
    assert says in str(text)
    assert peak <= MAX_DECODING_BYTES + MAX_DECODING_BYTES_PER_BYTE * len(payload)
    assert taken_s <= MAX_SECONDS


@pytest.mark.parametrize(
    "raw",
    [
        cbor2.dumps({**EMPTY, 5: {(1 << 31) + n: 0 for n in range(LONG // 6)}}),
        cbor2.dumps({**EMPTY, 5: {float(n) + 0.1: 0 for n in range(LONG // 10)}}),
        cbor2.dumps({**EMPTY, 5: {str(n + 100_000): "" for n in range(LONG // 8)}}),
        cbor2.dumps({**EMPTY, 5: [0.5] * (LONG // 9)}),
        cbor2.dumps({**EMPTY, 5: ["ab"] * (LONG // 3)}),
        cbor2.dumps({**EMPTY, 5: [1000 + n % 60_000 for n in range(LONG // 3)]}),
        cbor2.dumps({**EMPTY, 6: bytes(LONG)}),
        # Lengths far above the bytes that are there.
        b"\xa1\x00\x5b\x00\x00\x00\xff\xff\xff\xff\xff",
        b"\xa1\x00\x7b\x00\x00\x00\xff\xff\xff\xff\xff",
        b"\xa1\x00\x9b\x00\x00\x00\xff\xff\xff\xff\xff",
        b"\xa1\x00\xbb\x00\x00\x00\xff\xff\xff\xff\xff",
    ],
)
def test_a_message_takes_no_more_memory_than_stated(raw: bytes) -> None:
    def decode() -> None:
        try:
            Update.decode(raw)
        except MessageError:
            return

    assert len(raw) <= MAX_MESSAGE_BYTES
    _, peak, taken_s = traced(decode)
    assert peak <= MAX_PARSING_BYTES
    assert taken_s <= MAX_SECONDS


@pytest.mark.parametrize("bits", [4.0, cbor2.CBORSimpleValue(4), True])
def test_what_only_equals_a_choice_is_refused(bits: object) -> None:
    announcement = Announcement(
        task="00" * 16,
        version=1,
        sha256="ab" * 32,
        size_bytes=1,
        paused=False,
        training=TrainingPolicy(),
        codec=CodecPolicy(),
    )
    body = cbor2.loads(announcement.encode())
    body[7][2] = bits
    with pytest.raises(MessageError, match="one of 1, 2, 4, 8"):
        Announcement.decode(cbor2.dumps(body))
