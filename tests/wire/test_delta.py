"""Sums of deltas, and rows of blocks, are those of maps from row to values."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from wire.delta import RowBlock, add

ids = st.lists(st.integers(0, 12), unique=True).map(sorted)


def block(rows: list[int], seed: int) -> RowBlock:
    values = np.random.default_rng(seed).normal(size=(len(rows), 3)).astype(np.float32)
    return RowBlock(np.array(rows, np.int64), values)


def as_map(block: RowBlock) -> dict[int, list[float]]:
    return dict(zip(block.rows.tolist(), block.values.tolist(), strict=True))


@given(ids, ids)
def test_rows_of_a_block_are_its_own_or_zero(own: list[int], wanted: list[int]) -> None:
    some, rows = block(own, 0), np.array(wanted, np.int64)
    known = as_map(some)
    assert some.has(rows).tolist() == [row in known for row in wanted]
    assert some.at(rows).tolist() == [known.get(row, [0.0] * 3) for row in wanted]


@given(ids, st.one_of(ids, st.none()))
def test_a_sum_has_the_rows_of_both(first: list[int], second: list[int] | None) -> None:
    left, right = block(first, 0), block(first if second is None else second, 1)
    summed = add({"t": left}, {"t": right}, -1.0)["t"]
    assert isinstance(summed, RowBlock)
    assert summed.rows.tolist() == sorted({*left.rows.tolist(), *right.rows.tolist()})
    np.testing.assert_array_equal(
        summed.values, left.at(summed.rows) - right.at(summed.rows), strict=True
    )


def test_what_is_given_is_not_what_comes_back() -> None:
    some = block([1, 4], 0)
    some.at(some.rows)[:] = 0.0
    assert some.values.any()
