"""Participation weights: laws and golden numbers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator.merging.participation import participation_weights

counts = st.lists(st.integers(0, 10**6), min_size=1, max_size=30).map(
    lambda values: np.array(values, np.int64)
)


def test_golden_weights() -> None:
    counted = np.array([0, 1, 7], np.int64)
    assert participation_weights(counted, exponent=1.0, limit=100.0).tolist() == [8.0, 4.0, 1.0]
    assert participation_weights(counted, exponent=1.0, limit=5.0).tolist() == [5.0, 4.0, 1.0]
    halves = participation_weights(counted, exponent=0.5, limit=100.0)
    assert halves.tolist() == pytest.approx([8**0.5, 2.0, 1.0])


@given(counts, st.floats(0, 2), st.floats(1, 100))
def test_weights_are_bounded_and_fall_with_the_count(
    counted: np.ndarray[tuple[int], np.dtype[np.int64]], exponent: float, limit: float
) -> None:
    weights = participation_weights(counted, exponent=exponent, limit=limit)
    assert weights.min() == 1.0
    assert weights.max() <= limit
    assert (np.diff(weights[np.argsort(counted, kind="stable")]) <= 0).all()


@given(st.integers(0, 10**6), st.integers(1, 10), st.floats(0, 2))
def test_who_sent_equally_many_weigh_one(count: int, size: int, exponent: float) -> None:
    weights = participation_weights(np.full(size, count), exponent=exponent, limit=4.0)
    assert weights.tolist() == [1.0] * size


def test_nobody_weighs_nothing() -> None:
    assert len(participation_weights(np.zeros(0, np.int64), exponent=1.0, limit=4.0)) == 0
