"""What the decoder refuses, by name, and that nothing worse happens to it."""

import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.wire.strategies import Case, deltas, policies, specs_of
from wire.codec import decode_delta, encode_delta
from wire.codec.delta import MAX_DECODED_VALUES
from wire.codec.stream import Writer
from wire.delta import RowBlock
from wire.errors import CodecError, NotFiniteError
from wire.manifest import ParameterSpec, Role
from wire.policy import CodecPolicy

Numbers = list[tuple[int, int]]

TABLE = (ParameterSpec("item", Role.ROWS, (10, 2)),)
HUGE = (ParameterSpec("item", Role.ROWS, (1 << 24, 64)),)

MOST_BYTES = 256 << 20

# Each number with its width in bits.
VERSION = (1, 4)
NONE, ALL, DRAWN_ROWS, DRAWN_ENTRIES = ((places, 2) for places in range(4))
RAW, HALF, LEVELS, SCALED, FACTORS, UNKNOWN = ((form, 3) for form in range(6))
ONE, INFINITE, LARGEST = (127 << 4, 12), (255 << 4, 12), ((255 << 4) - 1, 12)
ROW_0: Numbers = [(1, 4), (1, 1), (0, 2)]
"""One of ten rows: a gap of 0, for which the divisor is 7."""
BOTH_ENTRIES: Numbers = [(2, 2), (0, 2)]
"""Two of two entries are not zero, none of the two is negative."""


def message(*numbers: tuple[int, int]) -> bytes:
    writer = Writer()
    for value, width in (VERSION, *numbers):
        writer.number(value, width)
    return writer.getvalue()


def test_a_message_built_by_hand_is_read() -> None:
    payload = message(ALL, LEVELS, *ROW_0, *BOTH_ENTRIES, ONE, (1, 4), (0b10, 2), ONE)
    block = decode_delta(payload, TABLE)["item"]
    assert isinstance(block, RowBlock)
    assert block.rows.tolist() == [0]
    assert block.values.tolist() == [[2.0, 1.0]]


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        (b"", "truncated: 4 bits wanted, 0 left"),
        (b"\x00", "version 0 of the format; this software knows 1"),
        (b"\x20", "version 2 of the format; this software knows 1"),
        (message(NONE) + b"\x00", "1 trailing bytes"),
        (message(NONE, (1, 2)), "padding"),
        (message(ALL, UNKNOWN), "unknown form 5"),
        (message(ALL, RAW, (11, 4)), "count of 11; at most 10"),
        (message(ALL, RAW, (0, 4)), "a form for no rows"),
        (message(ALL, RAW, (1, 4), (0b01, 2), (3, 2), (1, 1)), "index 13; the bound is 10"),
        (message(ALL, RAW, (1, 4), (0, 30)), "0 of 1 unary numbers"),
        (message(ALL, RAW, *ROW_0, (0, 32)), "truncated"),
        (message(ALL, LEVELS, *ROW_0, (3, 2)), "count of 3; at most 2"),
        (message(ALL, LEVELS, *ROW_0, *BOTH_ENTRIES, ONE, (7, 4)), "truncated"),
        (message(ALL, SCALED, *ROW_0, (15, 4), (1, 17), (0, 4)), "row scale of 256; at most 255"),
        (message(ALL, FACTORS, *ROW_0, (2, 4)), "rank of 3 for rows of 2"),
        (message(DRAWN_ROWS, RAW, (7, 32), (0, 4)), "draws 0 places of 10"),
        (message(DRAWN_ROWS, RAW, (7, 32), (11, 4)), "draws 11 places of 10"),
        (message(DRAWN_ENTRIES, RAW, (7, 32), (21, 5)), "draws 21 places of 20"),
        (message(DRAWN_ENTRIES, FACTORS, (7, 32), (20, 5), (1, 5), (0, 32)), "unary numbers"),
    ],
)
def test_what_is_malformed_is_refused_by_name(payload: bytes, says: str) -> None:
    with pytest.raises(CodecError, match=says):
        decode_delta(payload, TABLE)


@pytest.mark.parametrize(
    "payload",
    [
        message(ALL, RAW, *ROW_0, (0x7FC00000, 32), (0, 32)),
        message(ALL, RAW, *ROW_0, (0, 32), (0xFF800000, 32)),
        message(ALL, HALF, *ROW_0, (0x7C00, 16), (0, 16)),
        message(ALL, LEVELS, *ROW_0, *BOTH_ENTRIES, INFINITE, (0, 4)),
        message(ALL, LEVELS, *ROW_0, *BOTH_ENTRIES, ONE, (1, 4), (1, 2), INFINITE),
        message(ALL, LEVELS, *ROW_0, *BOTH_ENTRIES, LARGEST, (7, 4), (127, 14), LARGEST),
        message(
            ALL,
            FACTORS,
            *ROW_0,
            (0, 4),
            *BOTH_ENTRIES,
            LARGEST,
            (0, 4),
            *((1, 1), (0, 1)),
            LARGEST,
            (0, 4),
        ),
    ],
)
def test_what_is_not_finite_is_refused_by_name(payload: bytes) -> None:
    with pytest.raises(NotFiniteError):
        decode_delta(payload, TABLE)


def every_row(universe: int) -> Numbers:
    return [(universe, universe.bit_length())]


@pytest.mark.parametrize(
    ("specs", "numbers"),
    [
        (HUGE, [ALL, LEVELS, *every_row(1 << 24)]),
        (HUGE, [ALL, FACTORS, (MAX_DECODED_VALUES // 64 + 1, 25)]),
        (HUGE, [DRAWN_ROWS, RAW, (0, 32), (1 << 24, 25)]),
        (HUGE, [DRAWN_ENTRIES, RAW, (0, 32), (1 << 30, 31)]),
        ((ParameterSpec("head", Role.DENSE, (1 << 15, 1 << 10)),), [NONE]),
        ((ParameterSpec("head", Role.DENSE, (1 << 12, 1 << 12)),) * 2, [NONE, NONE]),
    ],
)
def test_a_header_cannot_make_the_decoder_take_memory(
    specs: tuple[ParameterSpec, ...], numbers: Numbers
) -> None:
    payload = message(*numbers) + bytes(100)
    tracemalloc.start()
    with pytest.raises(CodecError, match=r"at most|too large|draws"):
        decode_delta(payload, specs)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < MOST_BYTES


FULL_TABLE = MAX_DECODED_VALUES // 64


def all_ones(size: int) -> Numbers:
    return [*every_row(size), (0, size.bit_length()), ONE, (0, 4)]


@pytest.mark.parametrize(
    ("numbers", "value"),
    [
        ([LEVELS, *every_row(FULL_TABLE), *all_ones(MAX_DECODED_VALUES)], 1.0),
        ([SCALED, *every_row(FULL_TABLE), (0, 4), *all_ones(MAX_DECODED_VALUES)], 1.0),
        (
            [
                *(FACTORS, *every_row(FULL_TABLE), (15, 4)),
                *all_ones(16 * 64),
                *all_ones(16 * FULL_TABLE),
            ],
            16.0,
        ),
    ],
)
def test_the_largest_deltas_of_the_fewest_bytes_stay_within_bounds(
    numbers: Numbers, value: float
) -> None:
    specs = (ParameterSpec("item", Role.ROWS, (FULL_TABLE, 64)),)
    payload = message(ALL, *numbers)
    assert len(payload) < 20
    tracemalloc.start()
    started = time.process_time()
    block = decode_delta(payload, specs)["item"]
    taken_s = time.process_time() - started
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert isinstance(block, RowBlock)
    assert (block.values == value).all()
    assert peak < MOST_BYTES
    assert taken_s < 10.0


@given(st.binary(max_size=300), st.booleans())
@settings(max_examples=300)
def test_random_bytes_are_decoded_or_refused_by_name(payload: bytes, versioned: bool) -> None:
    specs = specs_of(40, 5)
    if versioned and payload:
        payload = bytes([0x10 | payload[0] & 0x0F]) + payload[1:]
    try:
        decoded = decode_delta(payload, specs)
    except CodecError:
        return
    assert set(decoded) == {"item", "head"}


@given(deltas(), policies(), st.data())
@settings(max_examples=200)
def test_a_damaged_payload_is_decoded_or_refused_by_name(
    case: Case, policy: CodecPolicy, data: st.DataObject
) -> None:
    delta, specs = case
    payload = bytearray(encode_delta(delta, specs, policy, np.random.default_rng(1)))
    payload[data.draw(st.integers(0, len(payload) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        decoded = decode_delta(bytes(payload), specs)
    except CodecError:
        return
    block = decoded["item"]
    assert isinstance(block, RowBlock)
    assert block.values.shape == (len(block.rows), specs[0].shape[1])
    assert np.isfinite(block.values).all()
