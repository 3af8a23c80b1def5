"""Laws and golden numbers of the buffered merge."""

from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from aggregator.merging import Contribution, RowCorrection, Rule, ServerState, Weighting, merge
from wire.delta import RowBlock, Tensor

ITEMS, WIDTH = 6, 2
FRESH_RULES = [
    Rule(weighting=weighting, staleness_exponent=exponent)
    for weighting in Weighting
    for exponent in (0.0, 0.5)
]


def state(version: int = 0) -> ServerState:
    table = np.linspace(0, 2, ITEMS * WIDTH, dtype=np.float32).reshape(ITEMS, WIDTH)
    return ServerState(version, {"item": table, "bias": np.zeros(3, np.float32)})


def contribution(
    id: int, rows: dict[int, list[float]], *, base: int = 0, examples: int = 1, bias: float = 0.0
) -> Contribution:
    ids = np.array(sorted(rows), np.int64)
    values = np.array([rows[i] for i in sorted(rows)], np.float32).reshape(-1, WIDTH)
    delta: dict[str, Tensor] = {"item": RowBlock(ids, values), "bias": np.full(3, bias, np.float32)}
    return Contribution(id, base, examples, delta)


def moved(before: ServerState, after: ServerState, name: str) -> NDArray[np.float32]:
    return after.parameters[name] - before.parameters[name]


finite = st.floats(-4, 4, width=32)
row_deltas = st.dictionaries(
    st.integers(0, ITEMS - 1), st.lists(finite, min_size=WIDTH, max_size=WIDTH), min_size=1
)


@st.composite
def batches(draw: st.DrawFn, *, stale: bool = True) -> list[Contribution]:
    size = draw(st.integers(1, 8))
    return [
        contribution(
            id,
            draw(row_deltas),
            base=draw(st.integers(0, 5)) if stale else 5,
            examples=draw(st.integers(1, 50)),
            bias=draw(finite),
        )
        for id in range(1, size + 1)
    ]


rules = st.builds(
    Rule,
    staleness_exponent=st.floats(0, 2),
    server_learning_rate=st.floats(0.1, 2),
    weighting=st.sampled_from(Weighting),
    row_correction=st.sampled_from(RowCorrection),
)


def fedavg(before: ServerState, batch: list[Contribution], *, examples: bool) -> ServerState:
    """Synchronous FedAvg by its definition: the weighted mean of the devices' final models."""
    weights = np.array([c.examples if examples else 1 for c in batch], np.float64)
    means = {}
    for name, old in before.parameters.items():
        models = []
        for c in batch:
            model, tensor = old.astype(np.float64), c.delta[name]
            if isinstance(tensor, RowBlock):
                model[tensor.rows] += tensor.values
            else:
                model += tensor
            models.append(model)
        means[name] = np.average(models, axis=0, weights=weights).astype(np.float32)
    return ServerState(before.version + 1, means)


@given(batch=batches(stale=False), rule=st.sampled_from(FRESH_RULES))
def test_zero_staleness_and_a_full_buffer_equal_fedavg(
    batch: list[Contribution], rule: Rule
) -> None:
    before = state(5)
    expected = fedavg(before, batch, examples=rule.weighting is Weighting.EXAMPLES)
    after = merge(before, batch, rule)
    for name in before.parameters:
        np.testing.assert_allclose(after.parameters[name], expected.parameters[name], atol=1e-6)


@given(batch=batches(), rule=rules, random=st.randoms())
def test_order_inside_a_buffer_does_not_change_a_bit(
    batch: list[Contribution], rule: Rule, random: Random
) -> None:
    shuffled = list(batch)
    random.shuffle(shuffled)
    left, right = merge(state(5), batch, rule), merge(state(5), shuffled, rule)
    for name in left.parameters:
        assert left.parameters[name].tobytes() == right.parameters[name].tobytes()


@given(batch=batches(), rule=rules)
def test_a_row_nobody_touched_stays_bit_for_bit(batch: list[Contribution], rule: Rule) -> None:
    before = state(5)
    after = merge(before, batch, rule)
    touched: set[int] = set()
    for c in batch:
        block = c.delta["item"]
        assert isinstance(block, RowBlock)
        touched |= set(block.rows.tolist())
    for row in set(range(ITEMS)) - touched:
        assert np.array_equal(after.parameters["item"][row], before.parameters["item"][row])


@given(batch=batches(), rule=rules)
def test_merge_leaves_its_input_alone_and_counts_one_version(
    batch: list[Contribution], rule: Rule
) -> None:
    before = state(5)
    copy = {name: array.copy() for name, array in before.parameters.items()}
    after = merge(before, batch, rule)
    assert after.version == 6
    assert before.version == 5
    for name, array in copy.items():
        assert np.array_equal(before.parameters[name], array)
        assert after.parameters[name].dtype == np.float32


@settings(max_examples=30)
@given(batch=batches(), rule=rules, factor=st.floats(0.25, 4))
def test_the_step_scales_with_the_server_learning_rate(
    batch: list[Contribution], rule: Rule, factor: float
) -> None:
    scaled = Rule.from_dict(
        {**rule.to_dict(), "server_learning_rate": rule.server_learning_rate * factor}
    )
    zero = ServerState(5, {k: np.zeros_like(v) for k, v in state().parameters.items()})
    one, many = merge(zero, batch, rule), merge(zero, batch, scaled)
    for name in zero.parameters:
        np.testing.assert_allclose(
            many.parameters[name], one.parameters[name] * factor, rtol=1e-5, atol=1e-6
        )


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


def test_updates_without_examples_change_nothing_when_examples_weigh() -> None:
    before = state()
    for correction in RowCorrection:
        rule = Rule(weighting=Weighting.EXAMPLES, row_correction=correction)
        after = merge(before, [contribution(1, {0: [1.0, 1.0]}, examples=0)], rule)
        assert np.array_equal(after.parameters["item"], before.parameters["item"])


def test_an_empty_batch_makes_an_equal_version() -> None:
    after = merge(state(4), [], Rule())
    assert after.version == 5
    assert np.array_equal(after.parameters["item"], state().parameters["item"])


def test_an_update_from_a_later_version_is_refused() -> None:
    with pytest.raises(ValueError, match="later version"):
        merge(state(1), [contribution(1, {0: [1.0, 1.0]}, base=2)], Rule())


def test_rows_and_dense_deltas_of_one_parameter_are_refused() -> None:
    odd = Contribution(2, 0, 1, {"item": np.zeros((ITEMS, WIDTH), np.float32)})
    with pytest.raises(ValueError, match="both rows and dense"):
        merge(state(), [contribution(1, {0: [1.0, 1.0]}), odd], Rule())
