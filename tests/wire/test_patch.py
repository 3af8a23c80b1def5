"""Laws of the shared states: rounding, patches between any two of them, and requests for rows."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.strategies import specs_of
from wire.codec import decode_delta, encode_multiples
from wire.delta import FloatArray, RowBlock
from wire.errors import CodecError
from wire.manifest import ParameterSpec, Role
from wire.patch import (
    apply_patch,
    decode_row_numbers,
    encode_patch,
    encode_row_numbers,
    encode_rows,
    on_grid,
)

ITEMS, WIDTH = 40, 5
SPECS = specs_of(ITEMS, WIDTH)
State = dict[str, FloatArray]


def state(seed: int, exponent: int, share: float = 1.0) -> State:
    """A random model on a grid, of which a share of the rows is not zero."""
    rng = np.random.default_rng(seed)
    exact = {
        spec.name: rng.normal(size=spec.shape).astype(np.float32)
        * np.float32(rng.choice([0.0, 0.01, 1.0, 30.0]))
        for spec in SPECS
    }
    exact["item"] *= rng.random((ITEMS, 1)) < share
    return {name: on_grid(values, exponent) for name, values in exact.items()}


def bits(values: State) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in values.items()}


seeds = st.integers(0, 2**32 - 1)
exponents = st.integers(-9, 3)


@given(seeds, st.integers(-100, 100))
def test_rounding_is_to_the_nearest_multiple_and_never_minus_zero(seed: int, exponent: int) -> None:
    values = np.random.default_rng(seed).normal(size=50).astype(np.float32) * 2.0 ** (exponent - 1)
    rounded = on_grid(values.astype(np.float32), exponent)
    step = 2.0**exponent
    assert np.array_equal(rounded / step, np.rint(values / step))
    assert not np.signbit(rounded[rounded == 0.0]).any()
    assert np.array_equal(on_grid(rounded, exponent), rounded)


@given(st.lists(st.tuples(seeds, exponents, st.floats(0.0, 1.0)), min_size=2, max_size=6))
def test_every_way_from_one_state_to_another_ends_with_the_same_bits(
    stops: list[tuple[int, int, float]],
) -> None:
    states = [state(*stop) for stop in stops]
    held = {name: np.array(values) for name, values in states[0].items()}
    for at in range(1, len(stops)):
        finer = dict.fromkeys(held, min(stops[at - 1][1], stops[at][1]))
        apply_patch(held, encode_patch(states[at - 1], states[at], SPECS, finer), SPECS)
        assert bits(held) == bits(states[at])
    jumped = {name: np.array(values) for name, values in states[0].items()}
    finer = dict.fromkeys(held, min(stops[0][1], stops[-1][1]))
    apply_patch(jumped, encode_patch(states[0], states[-1], SPECS, finer), SPECS)
    assert bits(jumped) == bits(held)
    fresh = {spec.name: np.zeros(spec.shape, np.float32) for spec in SPECS}
    whole = encode_patch(None, states[-1], SPECS, dict.fromkeys(held, stops[-1][1]))
    apply_patch(fresh, whole, SPECS)
    assert bits(fresh) == bits(held)


@given(seeds, exponents)
def test_the_same_patch_has_the_same_bytes_and_nothing_new_costs_next_to_nothing(
    seed: int, exponent: int
) -> None:
    one, other = state(seed, exponent), state(seed + 1, exponent)
    step = dict.fromkeys(one, exponent)
    assert encode_patch(one, other, SPECS, step) == encode_patch(one, other, SPECS, step)
    assert len(encode_patch(one, one, SPECS, step)) == 2


def test_a_sum_that_float32_rounds_is_refused() -> None:
    old, new = state(1, -4), state(1, -4)
    old["head"][0, 0], new["head"][0, 0] = 2.0**24, 1.0
    old["head"][0, 1], new["head"][0, 1] = 2.0**25, 2.0**-4
    with pytest.raises(CodecError, match="head is not exact"):
        encode_patch(old, new, SPECS, dict.fromkeys(old, -4))


def test_what_is_no_multiple_is_refused() -> None:
    delta = {"item": RowBlock(np.array([3]), np.full((1, WIDTH), 0.3, np.float32))}
    with pytest.raises(CodecError, match=r"not multiples of 2\^-4"):
        encode_multiples(delta, SPECS, {"item": -4, "head": 0})


def test_large_multiples_cost_no_more_than_raw() -> None:
    rng = np.random.default_rng(0)
    values = (rng.integers(-(2**23), 2**23, (ITEMS, WIDTH)) * 2.0**-4).astype(np.float32)
    delta = {"item": RowBlock(np.arange(ITEMS), values)}
    payload = encode_multiples(delta, SPECS, {"item": -4, "head": 0})
    assert len(payload) <= values.nbytes + 8
    block = decode_delta(payload, SPECS)["item"]
    assert isinstance(block, RowBlock)
    assert np.array_equal(block.values, values)


@pytest.mark.parametrize("exponent", [-100, -63, -31, -30])
def test_a_size_that_jumps_by_any_power_of_two_is_exact(exponent: int) -> None:
    old = {name: np.zeros_like(values) for name, values in state(0, 0).items()}
    new = {name: np.array(values) for name, values in old.items()}
    # From a grid that was very fine to values that are very large, and one of the fine ones.
    new["item"][2:4], new["item"][7, 0] = 1.0, 2.0**exponent
    payload = encode_patch(old, new, SPECS, dict.fromkeys(old, exponent))
    apply_patch(old, payload, SPECS)
    assert bits(old) == bits(new)


@given(st.sets(st.integers(0, ITEMS - 1)))
def test_a_request_for_rows_is_what_it_was(wanted: set[int]) -> None:
    rows = np.array(sorted(wanted), np.int64)
    raw = encode_row_numbers(rows, ITEMS)
    assert np.array_equal(decode_row_numbers(raw, ITEMS), rows)
    with pytest.raises(CodecError):
        decode_row_numbers(raw + b"\0", ITEMS)


def test_a_request_for_every_row_of_a_huge_table_takes_no_memory() -> None:
    raw = encode_row_numbers(np.arange(1 << 24), 1 << 24)
    assert len(raw) < 10
    with pytest.raises(CodecError, match="at most 8388608"):
        decode_row_numbers(raw, 1 << 24)


@given(seeds, exponents, st.sets(st.integers(0, ITEMS - 1), min_size=1))
def test_rows_come_without_the_dense_parameters_and_these_without_rows(
    seed: int, exponent: int, wanted: set[int]
) -> None:
    whole, rows = state(seed, exponent, 0.8), np.array(sorted(wanted), np.int64)
    step = dict.fromkeys(whole, exponent)
    found = decode_delta(encode_rows(whole, rows, SPECS, step), SPECS)
    block = found["item"]
    assert isinstance(block, RowBlock)
    assert np.array_equal(block.at(rows), whole["item"][rows])
    assert np.isin(block.rows, rows).all()
    assert not np.asarray(found["head"]).any()
    dense = decode_delta(encode_rows(whole, rows[:0], SPECS, step), SPECS)
    assert np.array_equal(np.asarray(dense["head"]), whole["head"])


def test_too_many_rows_are_refused_before_they_are_gathered() -> None:
    specs = (ParameterSpec("item", Role.ROWS, (1 << 20, 32)),)
    # The file of a large table is mapped: what is not gathered takes no memory.
    state = {"item": np.broadcast_to(np.float32(1.0), specs[0].shape)}
    tracemalloc.start()
    with pytest.raises(CodecError, match="1048576 rows are too many; at most 32768"):
        encode_rows(state, np.arange(1 << 20), specs, {"item": 0})
    with pytest.raises(CodecError, match="is not decodable"):
        encode_patch(None, state, specs, {"item": 0})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 48 << 20


def test_a_dense_parameter_that_is_too_large_is_refused() -> None:
    specs = (ParameterSpec("head", Role.DENSE, ((1 << 23) + 1,)),)
    state = {"head": np.broadcast_to(np.float32(1.0), specs[0].shape)}
    with pytest.raises(CodecError, match="too large to decode"):
        encode_rows(state, np.zeros(0, np.int64), specs, {"head": 0})
