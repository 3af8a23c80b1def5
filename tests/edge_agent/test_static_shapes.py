"""Filling up to a capacity, cutting back, and the clip of a delta."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from edge_agent.errors import ProgramError
from edge_agent.runtimes.static_shapes import clip_delta, cut_tables, fill_batches, fill_tables
from wire.manifest import Capacity

CAPACITY = Capacity(5, 4)
floats = st.floats(-100, 100, width=32)
matrices = arrays.arrays(np.float32, (3, 2), elements=floats)


def batches(steps: int, samples: int) -> dict[str, NDArray[Any]]:
    return {
        "item": np.ones((steps, samples), np.int64),
        "history": np.ones((steps, samples, 3), np.int64),
        "context": np.full((steps, samples, 2), 99),
        "weight": np.ones((steps, samples), np.float32),
    }


@given(rows=st.integers(1, 5))
def test_tables_come_back_as_they_were(rows: int) -> None:
    table = np.arange(rows * 2, dtype=np.float32).reshape(rows, 2) + 1
    inputs = {"table": table, "other": table}
    filled, found = fill_tables(inputs, ["table"], CAPACITY)
    assert found == rows
    assert filled["table"].shape == (5, 2)
    assert not filled["table"][rows:].any()
    assert filled["other"] is table
    np.testing.assert_array_equal(cut_tables(filled, ["table"], found)["table"], table)


def test_without_tables_there_is_nothing_to_fill_or_cut() -> None:
    inputs = {"user": np.ones(3, np.float32)}
    filled, rows = fill_tables(inputs, [], CAPACITY)
    assert rows is None
    assert cut_tables(filled, [], rows) == filled == inputs


def test_tables_that_do_not_fit_are_refused() -> None:
    table = np.ones((3, 2), np.float32)
    with pytest.raises(ProgramError, match="the tables have 6 rows; the program holds 5"):
        fill_tables({"table": np.ones((6, 2))}, ["table"], CAPACITY)
    with pytest.raises(ProgramError, match=r"different numbers of rows: \{'one': 3, 'two': 2\}"):
        fill_tables({"one": table, "two": table[:2]}, ["one", "two"], CAPACITY)


@given(steps=st.integers(0, 3), samples=st.integers(1, 4))
def test_batches_are_filled_with_samples_of_weight_zero(steps: int, samples: int) -> None:
    inputs = batches(steps, samples)
    filled = fill_batches(inputs, inputs, CAPACITY, 2)
    for name, values in inputs.items():
        assert filled[name].shape == (steps, 4, *values.shape[2:])
        assert filled[name].dtype == values.dtype
        np.testing.assert_array_equal(filled[name][:, :samples], values)
        assert not filled[name][:, samples:].any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (batches(2, 5), "a step has 5 samples; the program holds 4"),
        ({"item": np.ones((2, 2), np.int64)}, "different numbers of steps or samples"),
        ({"weight": np.ones(2, np.float32)}, "different numbers of steps or samples"),
        ({"item": np.full((2, 3), 2)}, "item has positions from 2 to 2; the tables have 2 rows"),
        ({"history": np.full((2, 3, 3), -1)}, "history has positions from -1 to -1"),
    ],
)
def test_batches_that_do_not_fit_are_refused(change: dict[str, NDArray[Any]], message: str) -> None:
    inputs = {**batches(2, 3), **change}
    with pytest.raises(ProgramError, match=message):
        fill_batches(inputs, inputs, CAPACITY, 2)


def test_positions_mean_nothing_where_there_are_no_tables() -> None:
    inputs = batches(1, 4)
    assert fill_batches(inputs, inputs, CAPACITY, None).keys() == inputs.keys()


@given(start=matrices, new=matrices, clip=st.floats(1e-3, 100))
def test_a_clipped_delta_has_the_norm_or_less_and_points_the_same_way(
    start: NDArray[np.float32], new: NDArray[np.float32], clip: float
) -> None:
    before, after = {"a": start, "b": start[0]}, {"a": new, "b": new[0]}
    clipped = clip_delta(before, after, clip)
    whole = np.concatenate([(after[n] - before[n].astype(np.float64)).ravel() for n in before])
    short = np.concatenate([(clipped[n] - before[n].astype(np.float64)).ravel() for n in before])
    if np.linalg.norm(whole) <= clip:
        assert clipped == after
    else:
        # Absolute, because the sum of start and delta is rounded to float32.
        np.testing.assert_allclose(short, whole * (clip / np.linalg.norm(whole)), atol=1e-5)


def test_what_is_not_finite_is_not_made_finite() -> None:
    start = {"a": np.zeros(2, np.float32)}
    for value, clip in ((np.nan, 1.0), (np.inf, 1.0), (np.inf, np.inf), (1.0, np.nan)):
        new = {"a": np.array([value, 0.5], np.float32)}
        assert not np.isfinite(clip_delta(start, new, clip)["a"]).all()
