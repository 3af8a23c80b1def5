"""Index sets: what goes in comes out, at about the entropy."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire.codec.golomb import golomb_bits, read_golomb, write_golomb
from wire.codec.index_set import index_set_bits, read_index_set, write_index_set
from wire.codec.levels import coding_of, read_codes, write_codes
from wire.codec.stream import Reader, Writer


def written(members: list[int], universe: int) -> bytes:
    writer = Writer()
    write_index_set(writer, np.array(members, np.int64), universe)
    return writer.getvalue()


@given(st.data())
def test_a_set_comes_back(data: st.DataObject) -> None:
    universe = data.draw(st.integers(1, 400))
    members = sorted(data.draw(st.sets(st.integers(0, universe - 1))))
    reader = Reader(written(members, universe))
    assert read_index_set(reader, universe, universe).tolist() == members
    reader.finish()


@given(st.sets(st.integers(0, 2**31 - 2), max_size=5))
def test_a_small_set_of_a_large_universe_comes_back(chosen: set[int]) -> None:
    members = sorted(chosen)
    raw = written(members, 2**31 - 1)
    assert len(raw) <= 2 + 5 * len(members)
    assert read_index_set(Reader(raw), 2**31 - 1, 10).tolist() == members


def test_all_and_none_cost_only_the_count() -> None:
    assert len(written([], 1000)) == 1
    assert len(written(list(range(1000)), 1000)) == 2


@pytest.mark.parametrize("density", [0.003, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99])
def test_a_random_set_takes_about_its_entropy(density: float) -> None:
    universe = 100_000
    chosen = np.flatnonzero(np.random.default_rng(1).random(universe) < density)
    share = len(chosen) / universe
    entropy = -universe * (share * math.log2(share) + (1 - share) * math.log2(1 - share))
    bits = 8 * len(written(chosen.tolist(), universe))
    assert bits <= 1.014 * entropy + universe.bit_length() + 8
    assert index_set_bits(len(chosen), universe) == pytest.approx(bits, rel=0.011)


@given(st.lists(st.integers(0, 5000), max_size=60), st.integers(1, 300))
def test_golomb_codes_come_back_and_take_the_stated_bits(numbers: list[int], divisor: int) -> None:
    writer, array = Writer(), np.array(numbers, np.int64)
    write_golomb(writer, array, divisor)
    raw = writer.getvalue()
    assert len(raw) == -(-golomb_bits(array, divisor) // 8)
    reader = Reader(raw)
    assert read_golomb(reader, len(numbers), divisor).tolist() == numbers
    reader.finish()


@given(st.lists(st.integers(0, 127), max_size=60), st.integers(0, 3))
def test_codes_come_back_and_take_no_more_bits_than_fixed_ones(
    codes: list[int], shift: int
) -> None:
    writer, array = Writer(), np.array(codes, np.int64) >> shift
    coding = coding_of(array)
    write_codes(writer, array, coding)
    raw = writer.getvalue()
    # The size of a set is an estimate; of a short one, to within a few bits.
    assert len(raw) <= -(-coding.bits // 8) + 1
    assert coding.bits <= 4 + len(codes) * int(array.max(initial=0)).bit_length()
    number, found = read_codes(Reader(raw), len(codes))
    assert found.tolist() == array.tolist()
    assert number == coding.number
    assert (number == 0) == (not array.any())


@given(st.lists(st.tuples(st.integers(0, 32), st.integers(0, 2**32 - 1)), min_size=1))
def test_numbers_of_any_width_come_back(numbers: list[tuple[int, int]]) -> None:
    writer = Writer()
    for width, value in numbers:
        writer.number(value >> 32 - width, width)
    reader = Reader(writer.getvalue())
    assert [reader.number(width) for width, _ in numbers] == [
        value >> 32 - width for width, value in numbers
    ]
    reader.finish()


@given(st.integers(0, 2**31), st.integers(0, 2**31))
def test_a_count_comes_back_in_few_bits(value: int, beyond: int) -> None:
    writer = Writer()
    writer.count(value, value + beyond)
    raw = writer.getvalue()
    assert 8 * len(raw) < value.bit_length() + 6 + 8
    reader = Reader(raw)
    assert reader.count(value + beyond) == value
    reader.finish()
