"""Staleness weights: golden numbers and laws."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator.merging import constant, polynomial


def test_golden_weights_of_fedbuff() -> None:
    weigh = polynomial(0.5)
    assert [weigh(s) for s in (0, 3, 8, 99)] == pytest.approx([1.0, 0.5, 1 / 3, 0.1])


@given(st.floats(0, 10), st.integers(0, 10_000))
def test_a_fresh_update_weighs_one_and_older_ones_never_more(exponent: float, age: int) -> None:
    weigh = polynomial(exponent)
    assert weigh(0) == 1.0
    assert 0.0 <= weigh(age + 1) <= weigh(age) <= 1.0


@given(st.integers(0, 10_000))
def test_constant_is_exponent_zero(staleness: int) -> None:
    assert constant()(staleness) == polynomial(0.0)(staleness) == 1.0


@pytest.mark.parametrize("weigh", [constant(), polynomial(0.5)])
def test_negative_staleness_is_refused(weigh: object) -> None:
    assert callable(weigh)
    with pytest.raises(ValueError, match="later version"):
        weigh(-1)
