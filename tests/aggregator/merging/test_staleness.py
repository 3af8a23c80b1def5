"""Staleness weights: golden numbers and laws."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator.merging.staleness import StalenessWeight, ages, constant, hinge, polynomial
from tests.aggregator.merging.fleet import contribution

weights = st.one_of(
    st.just(constant()),
    st.builds(polynomial, st.floats(0, 10)),
    st.builds(hinge, st.floats(0.01, 1000), st.integers(0, 100)),
)


def weigh(weight: StalenessWeight, *stalenesses: int) -> list[float]:
    found: list[float] = weight(np.array(stalenesses, np.int64)).tolist()
    return found


def test_golden_weights_of_fedbuff() -> None:
    assert weigh(polynomial(0.5), 0, 3, 8, 99) == pytest.approx([1.0, 0.5, 1 / 3, 0.1])


def test_golden_weights_of_fedasync() -> None:
    assert weigh(hinge(10.0, 4), 0, 4, 5, 8) == pytest.approx([1.0, 1.0, 1 / 11, 1 / 41])
    assert weigh(constant(), 0, 7, 7) == [1.0, 1.0, 1.0]


@given(weights, st.integers(0, 10_000))
def test_a_fresh_update_weighs_one_and_older_ones_never_more(
    weight: StalenessWeight, age: int
) -> None:
    fresh, younger, older = weigh(weight, 0, age, age + 1)
    assert fresh == 1.0
    assert 0.0 <= older <= younger <= 1.0


@given(st.lists(st.integers(0, 10_000)))
def test_constant_is_exponent_zero(stalenesses: list[int]) -> None:
    assert weigh(constant(), *stalenesses) == weigh(polynomial(0.0), *stalenesses)


def test_staleness_counts_versions_before_the_merge() -> None:
    batch = [contribution(i, {0: [0.0, 0.0]}, base=i) for i in (0, 3, 4)]
    assert ages(4, batch).tolist() == [4, 1, 0]
    with pytest.raises(ValueError, match="later version"):
        ages(3, batch)
