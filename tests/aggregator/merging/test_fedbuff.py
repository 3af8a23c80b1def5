"""Golden numbers of the buffered merge."""

import numpy as np

from aggregator.merging import RowCorrection, Rule, Weighting, merge
from tests.aggregator.merging.fleet import contribution, moved, state


def test_golden_a_fresh_and_a_stale_update() -> None:
    # Version 3; staleness 0 weighs 1 and staleness 3 weighs (1 + 3)^-1/2 = 1/2.
    before = state(3)
    batch = [
        contribution(1, {0: [1.0, 2.0]}, base=3, bias=1.0),
        contribution(2, {0: [4.0, 0.0], 2: [2.0, -2.0]}, base=0, bias=3.0),
    ]
    after = merge(before, batch, Rule(server_learning_rate=2.0))
    # Row 0: 2 * (1*1 + 0.5*4) / 2 = 3 and 2 * (1*2 + 0) / 2 = 2; row 2: 2 * (0.5*2) / 2 = 1.
    np.testing.assert_allclose(moved(before, after, "item")[0], [3.0, 2.0], atol=1e-6)
    np.testing.assert_allclose(moved(before, after, "item")[2], [1.0, -1.0], atol=1e-6)
    np.testing.assert_allclose(moved(before, after, "bias"), [2.5] * 3, atol=1e-6)


def test_golden_examples_weigh_before_staleness() -> None:
    before = state(1)
    batch = [
        contribution(1, {0: [1.0, 0.0]}, base=1, examples=30),
        contribution(2, {0: [0.0, 1.0]}, base=0, examples=10),
    ]
    after = merge(before, batch, Rule(weighting=Weighting.EXAMPLES, staleness_exponent=1.0))
    # 30*1/40 = 0.75, and 10*(1/2)/40 = 0.125.
    np.testing.assert_allclose(moved(before, after, "item")[0], [0.75, 0.125], atol=1e-6)


def test_golden_touched_rows_are_averaged_over_those_that_touch_them() -> None:
    before = state(2)
    batch = [
        contribution(1, {0: [1.0, 1.0], 1: [6.0, 6.0]}, base=2),
        contribution(2, {0: [3.0, 3.0]}, base=2, bias=4.0),
        contribution(3, {4: [8.0, 8.0]}, base=2 - 2),
    ]
    rule = Rule(row_correction=RowCorrection.TOUCHED, staleness_exponent=1.0)
    after = merge(before, batch, rule)
    # Row 0 is the mean of two, row 1 is its one update's, row 4 weighs 1/3; dense is over all 3.
    np.testing.assert_allclose(moved(before, after, "item")[0], [2.0, 2.0], atol=1e-6)
    np.testing.assert_allclose(moved(before, after, "item")[1], [6.0, 6.0], atol=1e-6)
    np.testing.assert_allclose(moved(before, after, "item")[4], [8 / 3, 8 / 3], atol=1e-6)
    np.testing.assert_allclose(moved(before, after, "bias"), [4 / 3] * 3, atol=1e-6)


def test_golden_who_sent_less_weighs_more() -> None:
    # The device that sent 7 before weighs 1, the new one (8/1)^1/2 held to 2: thirds.
    before = state()
    batch = [
        contribution(1, {0: [3.0, 0.0]}, device="a", device_updates=7),
        contribution(2, {0: [0.0, 3.0]}, device="b", device_updates=0),
    ]
    rule = Rule(participation_exponent=0.5, participation_limit=2.0)
    after = merge(before, batch, rule)
    np.testing.assert_allclose(moved(before, after, "item")[0], [1.0, 2.0], atol=1e-6)
