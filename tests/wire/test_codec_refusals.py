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
from wire.codec.index_set import write_index_set
from wire.codec.levels import Levels
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
NONE, RAW, HALF, LEVELS, SCALED, FACTORS, DRAWN_ROWS, DRAWN_ENTRIES = ((n, 3) for n in range(8))
ONE, INFINITE, LARGEST = (127 << 5, 13), (255 << 5, 13), ((255 << 5) - 1, 13)


def count(value: int, most: int) -> Numbers:
    length = value.bit_length()
    head = (length, most.bit_length().bit_length())
    return [head, (value - (1 << length - 1), length - 1)] if length else [head]


ROW_0: Numbers = [*count(1, 10), (1, 1), (0, 2)]
"""One of ten rows: a gap of 0, for which the divisor is 7."""
BOTH_ENTRIES: Numbers = [*count(2, 2), (0, 3)]
"""Two of two entries are not zero, and neither is negative."""


def message(*numbers: tuple[int, int]) -> bytes:
    writer = Writer()
    for value, width in (VERSION, *numbers):
        writer.number(value, width)
    return writer.getvalue()


def test_a_message_built_by_hand_is_read() -> None:
    payload = message(LEVELS, *ROW_0, *BOTH_ENTRIES, ONE, (1, 4), (0b10, 2), ONE)
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
        (message(NONE, (1, 1)), "padding"),
        (message(DRAWN_ROWS, (7, 32), *count(5, 10), DRAWN_ROWS), "has no form 6 here"),
        (message(RAW, *count(11, 10)), "count of 11; at most 10"),
        (message(RAW, (5, 3)), "count of 5 bits; at most 10"),
        (message(RAW, *count(0, 10)), "a form for no rows"),
        (message(RAW, *count(1, 10), (0b01, 2), (3, 2), (1, 1)), "index 13; the bound is 10"),
        (message(RAW, *count(1, 10), (0, 30)), "0 of 1 unary numbers"),
        (message(RAW, *ROW_0, (0, 32)), "truncated"),
        (message(LEVELS, *ROW_0, *count(3, 2)), "count of 3; at most 2"),
        (message(LEVELS, *ROW_0, *BOTH_ENTRIES, ONE, (7, 4)), "truncated"),
        (message(SCALED, *ROW_0, (15, 4), (1, 17), (0, 4)), "row scale of 256; at most 255"),
        (message(FACTORS, *ROW_0, (2, 4)), "rank of 3 for rows of 2"),
        (message(DRAWN_ROWS, (7, 32), *count(0, 10)), "draws 0 places of 10"),
        (message(DRAWN_ROWS, (7, 32), *count(11, 10)), "count of 11; at most 10"),
        (message(DRAWN_ENTRIES, (7, 32), *count(21, 20)), "count of 21; at most 20"),
        (
            message(DRAWN_ENTRIES, (7, 32), *count(20, 20), FACTORS, *count(1, 20), (0, 32)),
            "unary numbers",
        ),
    ],
)
def test_what_is_malformed_is_refused_by_name(payload: bytes, says: str) -> None:
    with pytest.raises(CodecError, match=says):
        decode_delta(payload, TABLE)


@pytest.mark.parametrize(
    "payload",
    [
        message(RAW, *ROW_0, (0x7FC00000, 32), (0, 32)),
        message(RAW, *ROW_0, (0, 32), (0xFF800000, 32)),
        message(HALF, *ROW_0, (0x7C00, 16), (0, 16)),
        message(LEVELS, *ROW_0, *BOTH_ENTRIES, INFINITE, (0, 4)),
        message(LEVELS, *ROW_0, *BOTH_ENTRIES, ONE, (1, 4), (1, 2), INFINITE),
        message(LEVELS, *ROW_0, *BOTH_ENTRIES, LARGEST, (7, 4), (127, 14), LARGEST),
        message(
            FACTORS,
            *ROW_0,
            (0, 4),
            *BOTH_ENTRIES,
            LARGEST,
            (0, 4),
            *(*count(1, 1), (0, 2)),
            LARGEST,
            (0, 4),
        ),
    ],
)
def test_what_is_not_finite_is_refused_by_name(payload: bytes) -> None:
    with pytest.raises(NotFiniteError):
        decode_delta(payload, TABLE)


def every_row(universe: int) -> Numbers:
    return count(universe, universe)


@pytest.mark.parametrize(
    ("specs", "numbers"),
    [
        (HUGE, [LEVELS, *every_row(1 << 24)]),
        (HUGE, [FACTORS, *count(MAX_DECODED_VALUES // 64 + 1, 1 << 24)]),
        (HUGE, [DRAWN_ROWS, (0, 32), *every_row(1 << 24)]),
        (HUGE, [DRAWN_ENTRIES, (0, 32), *every_row(1 << 30)]),
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
    return [*every_row(size), (1, 1), *count(0, size), ONE, (0, 4)]


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
    payload = message(*numbers)
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


def test_drawn_entries_in_many_wide_rows_are_refused_before_the_rows_are_made() -> None:
    side = 1 << 14
    spec = ParameterSpec("table", Role.ROWS, (side, side))
    writer = Writer()
    for number in (VERSION, DRAWN_ENTRIES, (1, 32), *count(side, side * side), LEVELS):
        writer.number(*number)
    write_index_set(writer, np.arange(side), side)
    every = np.ones((side, 1), np.bool_)
    Levels(every, ~every.ravel(), np.zeros(side, np.int64), 1.0, 0.0).write(writer)
    payload = writer.getvalue()
    tracemalloc.start()
    try:
        with pytest.raises(CodecError, match="too large to decode"):
            decode_delta(payload, [spec])
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # As rows they would be a gigabyte.
    assert peak_bytes < 16 << 20
