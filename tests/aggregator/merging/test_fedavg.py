"""Synchronous averaging: who is stale is not of the cohort."""

import numpy as np
import pytest
from hypothesis import given

from aggregator.merging import Contribution, Kind, Rule, Weighting, merge
from tests.aggregator.merging.fleet import (
    assert_same_bits,
    batches,
    contribution,
    moved,
    state,
)


@given(batch=batches())
def test_a_buffer_counts_as_if_it_held_its_fresh_updates_only(batch: list[Contribution]) -> None:
    fresh = [c for c in batch if c.base_version == 5]
    rule = Rule(kind=Kind.FEDAVG)
    assert_same_bits(merge(state(5), batch, rule), merge(state(5), fresh, rule))


def test_golden_mean_by_examples_without_the_stale() -> None:
    before = state(4)
    batch = [
        contribution(1, {0: [4.0, 8.0]}, base=4, examples=3),
        contribution(2, {0: [8.0, 0.0]}, base=4, examples=1),
        contribution(3, {0: [9.0, 9.0], 1: [9.0, 9.0]}, base=3, examples=96),
    ]
    after = merge(before, batch, Rule(kind=Kind.FEDAVG, weighting=Weighting.EXAMPLES))
    assert moved(before, after, "item")[0].tolist() == pytest.approx([5.0, 6.0])
    assert np.array_equal(moved(before, after, "item")[1], [0.0, 0.0])
