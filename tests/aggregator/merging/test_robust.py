"""Laws and golden numbers of the robust choices."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from aggregator.merging import Contribution, RowCorrection, Rule, ServerState, merge
from aggregator.merging.part import Part
from aggregator.merging.robust import clip_rows, multi_krum, trimmed_dense, trimmed_rows
from wire.delta import FloatArray, RowBlock, Tensor

ITEMS, WIDTH, HUGE = 6, 2, 2.0**127

finite = st.floats(-4, 4, width=32)
even = st.integers(-400, 400).map(lambda hundredths: hundredths / 100)
"""Of rows whose lengths are within a factor that a clip can name."""
anything = st.floats(-HUGE, HUGE, width=32)
trims = st.floats(0.01, 0.49)


def part(
    id: int, rows: Mapping[int, Sequence[float]], *, fresh: float = 1.0, stale: bool = False
) -> Part:
    return Part(str(id), {"item": block(rows)}, fresh, fresh / 2 if stale else fresh)


def ids(parts: Sequence[Part]) -> list[int]:
    """The numbers that ``part`` was given."""
    return [int(part.device) for part in parts]


def block(rows: Mapping[int, Sequence[float]]) -> RowBlock:
    ids = np.array(sorted(rows), np.int64)
    values = np.array([rows[i] for i in sorted(rows)], np.float32).reshape(-1, WIDTH)
    return RowBlock(ids, values)


def item(part: Part) -> RowBlock:
    tensor = part.delta["item"]
    assert isinstance(tensor, RowBlock)
    return tensor


def blocks(parts: Sequence[Part]) -> list[tuple[RowBlock, Part]]:
    return [(item(part), part) for part in parts]


def lengths(part: Part) -> NDArray[np.float64]:
    squares = np.square(item(part).values, dtype=np.float64)
    found: NDArray[np.float64] = np.sqrt(squares.sum(axis=1))
    return found


def rows_of(values: st.SearchStrategy[float]) -> st.SearchStrategy[dict[int, list[float]]]:
    row = st.lists(values, min_size=WIDTH, max_size=WIDTH)
    return st.dictionaries(st.integers(0, ITEMS - 1), row, min_size=1)


@st.composite
def buffers(draw: st.DrawFn, *, least: int = 1, most: int = 9) -> list[Part]:
    weights = st.integers(1, 50).map(float)
    return [
        part(id, draw(rows_of(finite)), fresh=draw(weights), stale=draw(st.booleans()))
        for id in range(1, draw(st.integers(least, most)) + 1)
    ]


def state(version: int = 5) -> ServerState:
    table = np.linspace(0, 2, ITEMS * WIDTH, dtype=np.float32).reshape(ITEMS, WIDTH)
    return ServerState(version, {"item": table, "bias": np.zeros(3, np.float32)})


@st.composite
def batches(draw: st.DrawFn) -> list[Contribution]:
    return [
        Contribution(
            id,
            draw(st.integers(0, 5)),
            draw(st.integers(1, 50)),
            {"item": block(draw(rows_of(even))), "bias": np.full(3, draw(even), np.float32)},
        )
        for id in range(1, draw(st.integers(1, 9)) + 1)
    ]


rules = st.builds(
    Rule,
    row_correction=st.sampled_from(RowCorrection),
    row_clip=st.sampled_from([0.0, 0.5, 2.0]),
    trim=st.sampled_from([0.0, 0.1, 0.4]),
    krum_byzantine=st.integers(0, 4),
)


# What holds for a whole merge


@given(batch=batches(), rule=rules, random=st.randoms())
def test_order_inside_a_buffer_does_not_change_a_bit(
    batch: list[Contribution], rule: Rule, random: Random
) -> None:
    shuffled = list(batch)
    random.shuffle(shuffled)
    left, right = merge(state(), batch, rule), merge(state(), shuffled, rule)
    for name in left.parameters:
        assert left.parameters[name].tobytes() == right.parameters[name].tobytes()


@given(batch=batches(), rule=rules)
def test_a_row_nobody_touched_stays_bit_for_bit(batch: list[Contribution], rule: Rule) -> None:
    before, after = state(), merge(state(), batch, rule)
    touched = {row for c in batch for row in c.delta["item"].rows.tolist()}  # type: ignore[union-attr]
    for row in set(range(ITEMS)) - touched:
        assert np.array_equal(after.parameters["item"][row], before.parameters["item"][row])


@given(batch=batches(), correction=st.sampled_from(RowCorrection))
def test_defences_that_find_nothing_leave_the_plain_mean(
    batch: list[Contribution], correction: RowCorrection
) -> None:
    """A clip that nothing exceeds, and a trim of which the last value is not left out."""
    plain = merge(state(), batch, Rule(row_correction=correction))
    loose = merge(state(), batch, Rule(row_correction=correction, row_clip=1e9, trim=1e-12))
    for name in plain.parameters:
        np.testing.assert_allclose(loose.parameters[name], plain.parameters[name], atol=1e-5)


# Row clipping


@given(parts=buffers(), factor=st.floats(0.1, 10))
def test_no_row_is_longer_than_the_cap_and_short_ones_keep_their_bits(
    parts: list[Part], factor: float
) -> None:
    usual = [np.median(found[found > 0]) for p in parts if (found := lengths(p)).any()]
    cap = factor * float(np.median(usual)) if usual else 0.0
    for before, after in zip(parts, clip_rows(parts, factor), strict=True):
        assert (lengths(after) <= cap * (1 + 1e-6)).all()
        short = lengths(before) <= cap
        assert np.array_equal(item(after).values[short], item(before).values[short])
        assert replace(after, delta=before.delta) == before


@given(parts=buffers(least=3), rows=rows_of(anything), data=st.data())
def test_a_minority_cannot_raise_the_cap_above_an_honest_row(
    parts: list[Part], rows: dict[int, list[float]], data: st.DataObject
) -> None:
    honest = [p for p in parts if lengths(p).any()]
    liars = data.draw(st.integers(0, max(0, (len(honest) - 1) // 2)))
    hostile = [part(100 + n, rows) for n in range(liars)]
    longest = max((float(lengths(p).max()) for p in honest), default=0.0)
    for after in clip_rows([*honest, *hostile], 2.0):
        assert (lengths(after) <= 2.0 * longest * (1 + 1e-6)).all()


def test_golden_row_clip() -> None:
    # The medians of the parts are 5 and 1 and 3; their median 3, and the cap 6.
    parts = [
        part(1, {0: [3.0, 4.0], 1: [0.0, 0.0]}),
        part(2, {0: [0.0, 1.0]}),
        part(3, {2: [0.0, 3.0], 3: [0.0, 2.0], 4: [60.0, 80.0]}),
    ]
    clipped = clip_rows(parts, 2.0)
    np.testing.assert_allclose(item(clipped[2]).values[2], [3.6, 4.8], rtol=1e-6)
    for before, after in zip(parts[:2], clipped[:2], strict=True):
        assert item(after) is item(before)


def test_a_dense_parameter_counts_as_one_row() -> None:
    arrays = [np.array([0.0, length], np.float32) for length in (1.0, 2.0, 30.0)]
    parts = [Part(str(n), {"head": array}, 1.0, 1.0) for n, array in enumerate(arrays)]
    clipped = [p.delta["head"] for p in clip_rows(parts, 2.0)]
    np.testing.assert_allclose(np.array(clipped), [[0, 1], [0, 2], [0, 4]], rtol=1e-6)


# Multi-Krum


def test_golden_multi_krum() -> None:
    # Five on a line at 0, 1, 2, 3 and 100 with f = 1: scores are the sums of the two nearest
    # squared distances: 5, 2, 2, 5 and 97^2 + 98^2.
    parts = [part(n, {0: [float(at), 0.0]}) for n, at in enumerate((0, 1, 100, 2, 3))]
    assert ids(multi_krum(parts, 1)) == [0, 1, 3, 4]


def test_distances_run_over_the_union_of_rows_and_all_parameters() -> None:
    def both(id: int, row: int, head: float) -> Part:
        delta: dict[str, Tensor] = {
            "item": block({row: [1.0, 0.0]}),
            "head": np.array([head], np.float32),
        }
        return Part(str(id), delta, 1.0, 1.0)

    # One is off by a row that nobody else has, another by its dense parameter.
    by_row = [both(n, 0, 0.0) for n in range(4)] + [both(9, 5, 0.0)]
    by_head = [both(n, 0, 0.0) for n in range(4)] + [both(9, 0, 1.0)]
    for parts in (by_row, by_head):
        assert ids(multi_krum(parts, 1)) == [0, 1, 2, 3]


@given(parts=buffers(), byzantine=st.integers(0, 6))
def test_krum_keeps_all_but_f_where_the_buffer_allows(parts: list[Part], byzantine: int) -> None:
    kept = multi_krum(parts, byzantine)
    left_out = max(0, min(byzantine, (len(parts) - 3) // 2))
    assert len(kept) == len(parts) - left_out
    assert ids(kept) == sorted(ids(kept))


@given(parts=buffers(least=1, most=3), data=st.data())
def test_krum_leaves_out_what_is_far_from_all(parts: list[Part], data: st.DataObject) -> None:
    liars = data.draw(st.integers(1, 3))
    crowd = [replace(parts[n % len(parts)], device=str(n)) for n in range(2 * liars + 3)]
    hostile = [part(100 + n, {0: [1e6 * (n + 1), 0.0]}) for n in range(liars)]
    assert all(id < 100 for id in ids(multi_krum([*crowd, *hostile], liars)))


# The trimmed mean


def test_golden_trimmed_mean_over_those_that_touch_a_row() -> None:
    parts = [
        part(1, {0: [1.0, 9.0], 1: [7.0, 7.0]}),
        part(2, {0: [2.0, 8.0], 1: [9.0, 5.0]}),
        part(3, {0: [3.0, -50.0]}),
        part(4, {0: [400.0, 7.0], 4: [6.0, 6.0]}),
    ]
    rows, means = trimmed_rows("item", blocks(parts), 0.25)
    # Row 0 has four values, of which one goes at each end, in each coordinate another's; of two
    # or of one nothing goes.
    assert rows.tolist() == [0, 1, 4]
    np.testing.assert_allclose(means, [[2.5, 7.5], [8.0, 6.0], [6.0, 6.0]])


def test_golden_weights_count_among_those_that_are_kept() -> None:
    values = {1: 1.0, 2: 2.0, 3: 4.0, 4: 800.0, 5: -700.0}
    parts = [part(n, {0: [value, 0.0]}, fresh=float(n)) for n, value in values.items()]
    stale = [replace(p, weight=p.fresh / 2) for p in parts]
    # (1 * 1 + 2 * 2 + 3 * 4) / 6, and half of it at a staleness weight of a half.
    np.testing.assert_allclose(trimmed_rows("item", blocks(parts), 0.2)[1], [[17 / 6, 0.0]])
    np.testing.assert_allclose(trimmed_rows("item", blocks(stale), 0.2)[1], [[17 / 12, 0.0]])


def test_a_merge_moves_a_row_by_its_trimmed_mean_times_the_share_that_touches_it() -> None:
    zero = ServerState(0, {"item": np.zeros((ITEMS, WIDTH), np.float32)})
    rows: list[dict[int, list[float]]] = [{0: [value, 0.0]} for value in (1.0, 2.0, 90.0)]
    rows.append({1: [1.0, 1.0]})
    batch = [Contribution(n, 0, 1, {"item": block(row)}) for n, row in enumerate(rows)]
    plain = merge(zero, batch, Rule(trim=0.3)).parameters["item"]
    touched = merge(zero, batch, Rule(trim=0.3, row_correction=RowCorrection.TOUCHED))
    np.testing.assert_allclose(plain[0], [2.0 * 3 / 4, 0.0])
    np.testing.assert_allclose(touched.parameters["item"][0], [2.0, 0.0])


@given(parts=buffers())
def test_without_a_trim_it_is_the_mean_over_those_that_touch_a_row(parts: list[Part]) -> None:
    rows, means = trimmed_rows("item", blocks(parts), 0.0)
    for row, mean in zip(rows.tolist(), means, strict=True):
        touching = [p for p in parts if row in item(p).rows]
        values = [p.weight / p.fresh * item(p).at(np.array([row]))[0] for p in touching]
        expected = np.average(values, axis=0, weights=[p.fresh for p in touching])
        np.testing.assert_allclose(mean, expected, atol=1e-6)


@given(honest=buffers(least=3), data=st.data(), trim=trims)
def test_few_liars_move_a_coordinate_no_further_than_an_honest_device_would(
    honest: list[Part], data: st.DataObject, trim: float
) -> None:
    """Whatever they send, at whatever weight: the mean stays between honest values."""
    honest = [part(int(p.device), {0: item(p).values[0].tolist()}, fresh=p.fresh) for p in honest]
    count = len(honest)
    # As many as are left out at one end, of so many more values.
    few = (
        liars
        for liars in range(count)
        if liars <= min(int(np.ceil(trim * (count + liars) - 1e-9)), (count + liars - 1) // 2)
    )
    liars = data.draw(st.integers(0, max(few)))
    lies = st.lists(anything, min_size=WIDTH, max_size=WIDTH)
    weight = st.floats(1, 1e9)
    hostile = [part(100 + n, {0: data.draw(lies)}, fresh=data.draw(weight)) for n in range(liars)]
    (mean,) = trimmed_rows("item", blocks([*honest, *hostile]), trim)[1]
    values = np.array([item(p).values[0] for p in honest], np.float64)
    assert (mean >= values.min(axis=0) - 1e-9).all()
    assert (mean <= values.max(axis=0) + 1e-9).all()


def test_a_dense_parameter_is_trimmed_over_those_that_have_it() -> None:
    arrays: list[FloatArray] = [
        np.array([[value, -value]], np.float32) for value in (1, 2, 3, 50, -60)
    ]
    parts: list[tuple[FloatArray, Part]] = [
        (array, Part(str(n), {}, 1.0, 1.0)) for n, array in enumerate(arrays)
    ]
    np.testing.assert_allclose(trimmed_dense(parts, 0.2), [[2.0, -2.0]])
    zero = ServerState(0, {"head": np.zeros((1, 2), np.float32)})
    deltas: list[dict[str, Tensor]] = [{"head": array} for array in arrays]
    batch = [Contribution(n, 0, 1, delta) for n, delta in enumerate([*deltas, {}])]
    after = merge(zero, batch, Rule(trim=0.2)).parameters["head"]
    np.testing.assert_allclose(after, [[2.0 * 5 / 6, -2.0 * 5 / 6]])


@given(parts=buffers(), random=st.randoms())
def test_a_row_with_a_weight_of_its_own_is_trimmed_by_that(
    parts: list[Part], random: Random
) -> None:
    """As the same row would be in a part that weighs so much; and clipping keeps the weights."""
    shares = {p.device: random.choice([0.25, 0.5, 1.0]) for p in parts}
    by_part = [replace(p, weight=p.fresh * shares[p.device]) for p in parts]
    by_row = [
        replace(p, row_weights={"item": np.full(len(item(p).rows), q.weight)})
        for p, q in zip(parts, by_part, strict=True)
    ]
    for clipped in (list, lambda parts: clip_rows(parts, 0.5)):
        left = trimmed_rows("item", blocks(clipped(by_part)), 0.3)[1]
        right = trimmed_rows("item", blocks(clipped(by_row)), 0.3)[1]
        np.testing.assert_array_equal(left, right)


def test_golden_row_weights() -> None:
    # At row 0 the values 8, 6 and 4 weigh 1/4, 1/2 and 1: 2, 3 and 4, of which 3 is left.
    parts = [
        replace(part(n, {0: [value, 0.0], 3: [value, 0.0]}), row_weights={"item": np.array(own)})
        for n, (value, own) in enumerate([(8.0, [0.25, 1.0]), (6.0, [0.5, 1.0]), (4.0, [1.0, 1.0])])
    ]
    _, means = trimmed_rows("item", blocks(parts), 0.3)
    np.testing.assert_allclose(means, [[3.0, 0.0], [6.0, 0.0]])


def test_the_heat_of_a_row_counts_only_the_devices_that_krum_keeps() -> None:
    rule = Rule(row_correction=RowCorrection.HEAT, krum_byzantine=1)
    rows: list[dict[int, list[float]]] = [{0: [1.0, 0.0]}] * 4 + [{5: [900.0, 0.0]}]
    batch = [Contribution(n, 5, 1, {"item": block(r)}, f"d{n}") for n, r in enumerate(rows)]
    assert merge(state(), batch, rule).memory["heat/item"][5].max() == 0
    kept = merge(state(), batch[:4], rule.changed({"krum_byzantine": 0}))
    after = merge(state(), batch, rule)
    for name in kept.memory:
        assert after.memory[name].tobytes() == kept.memory[name].tobytes()


def test_parts_that_weigh_nothing_change_nothing() -> None:
    parts = [part(n, {0: [1.0, 1.0]}, fresh=0.0) for n in range(3)]
    np.testing.assert_array_equal(trimmed_rows("item", blocks(parts), 0.1)[1], [[0.0, 0.0]])


def test_krum_refuses_a_parameter_of_two_kinds() -> None:
    odd = Part("9", {"item": np.zeros((ITEMS, WIDTH), np.float32)}, 1.0, 1.0)
    with pytest.raises(ValueError, match="both rows and dense"):
        multi_krum([*(part(n, {0: [1.0, 1.0]}) for n in range(4)), odd], 1)
