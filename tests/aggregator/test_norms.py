"""The histogram of norms: laws and numbers."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator.norms import WINDOW, Norms

norms_of = st.lists(st.floats(1e-20, 1e20), min_size=1, max_size=60)


def after(values: list[float], start: Norms | None = None) -> Norms:
    norms = start or Norms()
    for value in values:
        norms = norms.plus(value)
    return norms


@given(values=norms_of, share=st.floats(0.01, 1.0))
def test_a_quantile_is_a_ninth_of_an_octave_above_the_exact_one_at_most(
    values: list[float], share: float
) -> None:
    exact = sorted(values)[max(0, math.ceil(share * len(values)) - 1)]
    found = after(values).quantile(share)
    assert exact * (1 - 1e-9) <= found <= exact * 2 ** (1 / 8) * (1 + 1e-9)


@given(values=norms_of, more=norms_of)
def test_changes_lead_from_one_value_to_the_other(values: list[float], more: list[float]) -> None:
    before = after(values)
    later = after(more, before)
    counts = dict(before.counts)
    for bucket, change in before.changes(later).items():
        counts[bucket] = counts.get(bucket, 0) + change
    assert {bucket: count for bucket, count in counts.items() if count} == later.counts


@given(values=norms_of)
def test_what_was_remembered_is_a_function_of_the_counts(values: list[float]) -> None:
    assert after(values, Norms(dict(after(values).counts))) == after([*values, *values])


def test_it_forgets_and_stays_small() -> None:
    norms = after([1.0] * 3 * WINDOW)
    assert WINDOW <= norms.total < 2 * WINDOW
    assert norms.quantile(0.5) == pytest.approx(2 ** (1 / 8))
    # A window of another size later, the old one is less than half.
    norms = after([0.01] * 2 * WINDOW, norms)
    assert norms.quantile(0.5) == pytest.approx(0.01, rel=0.1)


@given(honest=st.lists(st.floats(1.0, 2.0), min_size=10, max_size=60), large=st.booleans())
def test_a_minority_moves_the_median_within_the_honest_ones(
    honest: list[float], large: bool
) -> None:
    lies = [1e30 if large else 1e-30] * (len(honest) - 1)
    found = after([*honest, *lies]).quantile(0.5)
    assert min(honest) * (1 - 1e-9) <= found <= max(honest) * 2 ** (1 / 8) * (1 + 1e-9)


def test_zero_says_nothing_and_no_norm_has_no_quantile() -> None:
    assert Norms().plus(0.0) == Norms()
    with pytest.raises(ValueError, match="no norm"):
        Norms().quantile(0.5)


def test_huge_and_tiny_norms_have_buckets() -> None:
    assert sorted(after([1e300, 1e-300, 5e-324]).counts) == [-2048, 2048]
