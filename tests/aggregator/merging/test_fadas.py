"""The delay-adaptive rate: golden numbers."""

import numpy as np
import pytest

from aggregator.merging import Kind, Optimizer, Rule, merge
from aggregator.merging.fadas import learning_rate
from tests.aggregator.merging.fleet import contribution, moved, state


@pytest.mark.parametrize(
    ("stalenesses", "rate"),
    [([0, 0], 0.5), ([3, 0], 0.5), ([0, 4], 0.125), ([10, 4], 0.05), ([], 0.5)],
)
def test_golden_rates(stalenesses: list[int], rate: float) -> None:
    rule = Rule(kind=Kind.FADAS, server_learning_rate=0.5, delay_threshold=3)
    batch = [
        contribution(i, {0: [1.0, 1.0]}, base=20 - s) for i, s in enumerate(stalenesses, start=1)
    ]
    assert learning_rate(state(20), batch, rule) == pytest.approx(rate)


def test_golden_stale_updates_count_in_full_in_a_shorter_step() -> None:
    before = state(4)
    batch = [
        contribution(1, {0: [2.0, 0.0]}, base=4),
        contribution(2, {0: [0.0, 6.0]}, base=0),
    ]
    after = merge(before, batch, Rule(kind=Kind.FADAS, optimizer=Optimizer.SGD))
    np.testing.assert_allclose(moved(before, after, "item")[0], [0.25, 0.75], atol=1e-6)
