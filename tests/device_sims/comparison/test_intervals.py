"""Confidence intervals against published numbers, and the laws that they keep."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_sims.comparison.intervals import estimate, estimate_ratio, t_quantile

NUMBERS = st.floats(-1e6, 1e6)
RATIOS = st.floats(1e-3, 1e3)


@pytest.mark.parametrize(
    ("degrees", "confidence", "expected"),
    [
        *[(1, 0.95, 12.70620474), (2, 0.95, 4.30265273), (3, 0.95, 3.18244631)],
        *[(4, 0.95, 2.77644511), (5, 0.95, 2.57058184), (9, 0.95, 2.26215716)],
        *[(30, 0.95, 2.04227246), (100, 0.95, 1.98397152), (2, 0.99, 9.92484320)],
        *[(5, 0.99, 4.03214298), (10, 0.99, 3.16927267)],
    ],
)
def test_the_quantile_is_that_of_published_tables(
    degrees: int, confidence: float, expected: float
) -> None:
    assert t_quantile(degrees, confidence) == pytest.approx(expected, rel=1e-8)


def test_golden_numbers() -> None:
    found = estimate([0.30, 0.32, 0.37])
    assert found.mean == pytest.approx(0.33)
    # s = .036056, / sqrt(3) = .020817, times 4.302653.
    assert found.low == pytest.approx(0.33 - 0.0895668, abs=1e-6)
    assert found.high == pytest.approx(0.33 + 0.0895668, abs=1e-6)


def test_one_value_has_no_interval() -> None:
    found = estimate([0.25])
    assert (found.mean, found.low, found.high, found.values) == (0.25, None, None, (0.25,))


@given(st.lists(NUMBERS, min_size=2, max_size=8), NUMBERS, st.floats(0.1, 10.0))
def test_an_interval_moves_and_grows_with_its_values(
    values: list[float], shift: float, scale: float
) -> None:
    plain, moved = estimate(values), estimate([scale * value + shift for value in values])
    for one, other in ((plain.mean, moved.mean), (plain.low, moved.low), (plain.high, moved.high)):
        assert one is not None
        assert other is not None
        assert other == pytest.approx(scale * one + shift, rel=1e-6, abs=1e-3)


@given(st.lists(NUMBERS, min_size=2, max_size=8))
def test_the_mean_lies_in_the_middle_and_order_plays_no_part(values: list[float]) -> None:
    found = estimate(values)
    assert found.low is not None
    assert found.high is not None
    assert found.low <= found.mean <= found.high
    assert estimate(sorted(values)).low == pytest.approx(found.low, rel=1e-9, abs=1e-6)


@given(st.lists(st.tuples(RATIOS, RATIOS), min_size=2, max_size=6))
def test_a_ratio_the_other_way_round_is_its_inverse(pairs: list[tuple[float, float]]) -> None:
    above, below = zip(*pairs, strict=True)
    there, back = estimate_ratio(above, below), estimate_ratio(below, above)
    assert there.low is not None
    assert back.high is not None
    assert there.mean * back.mean == pytest.approx(1.0)
    # The logarithm of an end may be too large for its exponential to be exact.
    assert math.log(there.low) == pytest.approx(-math.log(back.high), rel=1e-6, abs=1e-6)
