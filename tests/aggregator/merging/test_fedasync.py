"""Mixing: golden numbers, and what is not mixed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator.merging import Kind, Rule, merge
from tests.aggregator.merging.fleet import contribution, moved, row_deltas, state


@given(rows=row_deltas, rate=st.floats(0.01, 1.0))
def test_a_fresh_update_is_mixed_as_the_paper_writes_it(
    rows: dict[int, list[float]], rate: float
) -> None:
    before, update = state(), contribution(1, rows, bias=2.0)
    after = merge(before, [update], Rule(kind=Kind.FEDASYNC, server_learning_rate=rate))
    table, trained = before.parameters["item"], before.parameters["item"].copy()
    for row, values in rows.items():
        trained[row] += np.array(values, np.float32)
    mixed = (1.0 - rate) * table + rate * trained
    np.testing.assert_allclose(after.parameters["item"], mixed, atol=1e-6)
    np.testing.assert_allclose(after.parameters["bias"], [rate * 2.0] * 3, atol=1e-6)


@pytest.mark.parametrize(
    ("words", "weight"),
    [
        ({"staleness": "constant"}, 1.0),
        ({"staleness": "polynomial", "staleness_exponent": 0.5}, 1 / 3),
        ({"staleness": "hinge", "staleness_slope": 10.0, "staleness_delay": 4}, 1 / 41),
    ],
)
def test_golden_staleness_of_eight(words: dict[str, object], weight: float) -> None:
    before = state(8)
    rule = Rule.from_dict({"kind": "fedasync", "server_learning_rate": 0.6, **words})
    after = merge(before, [contribution(1, {2: [1.0, -1.0]}, base=0)], rule)
    expected = [0.6 * weight, -0.6 * weight]
    np.testing.assert_allclose(moved(before, after, "item")[2], expected, atol=1e-6)


def test_two_updates_do_not_make_one_version() -> None:
    with pytest.raises(ValueError, match="one update at a time, not 2"):
        merge(state(), [contribution(i, {0: [1.0, 1.0]}) for i in (1, 2)], Rule(kind=Kind.FEDASYNC))
