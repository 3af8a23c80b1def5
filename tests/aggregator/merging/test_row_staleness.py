"""Row-wise staleness: laws against a full record, and golden numbers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator.merging import Rule, ServerState, StalenessScope, merge
from aggregator.merging.row_staleness import VERSIONS_KEPT, row_ages
from tests.aggregator.merging.fleet import ITEMS, contribution, moved, state

ROW = Rule(staleness_scope=StalenessScope.ROW)
ALL = np.arange(ITEMS, dtype=np.int64)
histories = st.lists(st.sets(st.integers(0, ITEMS - 1)), max_size=30)


def fold(history: list[set[int]], *, start: int = 0) -> ServerState:
    current = state(start)
    for rows in history:
        values = {row: [1.0, 1.0] for row in rows}
        current = merge(current, [contribution(1, values, base=current.version)], ROW)
    return current


@given(histories, st.data())
def test_a_row_is_as_stale_as_it_often_changed(
    history: list[set[int]], data: st.DataObject
) -> None:
    current = fold(history)
    base = data.draw(st.integers(0, current.version))
    found = row_ages(current, "item", ALL, base)
    for row in range(ITEMS):
        changes = sum(row in rows for rows in history[base:])
        if changes < VERSIONS_KEPT:
            assert found[row] == changes
        else:
            assert found[row] == current.version - base


@given(histories, st.integers(0, 5), st.data())
def test_what_is_not_recorded_counts_as_changed(
    history: list[set[int]], start: int, data: st.DataObject
) -> None:
    current = fold(history, start=start)
    base = data.draw(st.integers(0, current.version))
    found = row_ages(current, "item", ALL, base)
    for row in range(ITEMS):
        seen = sum(row in rows for rows in history[max(0, base - start) :])
        assert max(0, start - base) + min(seen, VERSIONS_KEPT) <= found[row]
        assert found[row] <= current.version - base


def test_golden_a_cold_row_is_fresh_and_a_hot_one_is_not() -> None:
    before = fold([{0}, {0}, {0, 1}])
    batch = [contribution(1, {0: [4.0, 4.0], 1: [4.0, 4.0], 2: [4.0, 4.0]}, base=0, bias=4.0)]
    after = merge(before, batch, ROW)
    # Staleness 3, 1 and 0: (1 + s)^-1/2. The dense bias is as stale as the model.
    expected = [[2.0, 2.0], [4 / 2**0.5] * 2, [4.0, 4.0]]
    np.testing.assert_allclose(moved(before, after, "item")[:3], expected, atol=1e-6)
    np.testing.assert_allclose(moved(before, after, "bias"), [2.0] * 3, atol=1e-6)


@pytest.mark.parametrize("base", [0, 3])
def test_without_a_record_a_row_is_as_stale_as_the_model(base: int) -> None:
    assert row_ages(state(3), "item", ALL, base).tolist() == [3 - base] * ITEMS
