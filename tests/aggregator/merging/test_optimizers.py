"""Server optimizers: golden numbers of two steps, and laws of each."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator.merging import Optimizer, Rule, ServerState, merge
from aggregator.merging.optimizers import SLOTS
from tests.aggregator.merging.fleet import Ledger, contribution, state

ADAPTIVE = [Optimizer.ADAGRAD, Optimizer.YOGI, Optimizer.ADAM, Optimizer.AMSGRAD]
ZERO = ServerState(0, {"bias": np.zeros(3, np.float32), "item": np.zeros((6, 2), np.float32)})


def places(rule: Rule, means: list[float]) -> list[float]:
    """Where one row and the bias are after each of some merges; they go the same way."""
    current, found = ZERO, []
    for mean in means:
        update = contribution(1, {3: [mean, mean]}, base=current.version, bias=mean)
        current = merge(current, [update], rule)
        row, bias = current.parameters["item"][3], current.parameters["bias"]
        assert np.array_equal(row, bias[:2])
        found.append(float(row[0]))
    return found


# D = 0.1 and then 0.3, with beta_1 = 0.9, beta_2 = 0.99, tau = 0.01 and eta = 0.1 throughout.
CONSTANTS = {"beta_1": 0.9, "beta_2": 0.99, "adaptivity": 0.01, "server_learning_rate": 0.1}
GOLDEN: list[tuple[dict[str, Any], list[float]]] = [
    ({"optimizer": "sgd"}, [0.1, 0.4]),
    # m = 0.1; 0.9 * 0.1 + 0.3 = 0.39.
    ({"optimizer": "momentum"}, [0.1, 0.49]),
    # m = 0.01, v = 1e-4 + 0.01 = 0.0101; m = 0.039, v = 0.1001.
    (
        {"optimizer": "adagrad", "beta_1": 0.9, "adaptivity": 0.01, "server_learning_rate": 0.1},
        [
            0.001 / (0.0101**0.5 + 0.01),
            0.001 / (0.0101**0.5 + 0.01) + 0.0039 / (0.1001**0.5 + 0.01),
        ],
    ),
    # v = 1e-4 + 0.01 * 0.01 = 2e-4; v = 2e-4 + 0.01 * 0.09 = 1.1e-3.
    (
        {"optimizer": "yogi", **CONSTANTS},
        [0.001 / (2e-4**0.5 + 0.01), 0.001 / (2e-4**0.5 + 0.01) + 0.0039 / (1.1e-3**0.5 + 0.01)],
    ),
    # v = 0.99 * 1e-4 + 1e-4 = 1.99e-4; v = 0.99 * 1.99e-4 + 9e-4 = 1.09701e-3.
    (
        {"optimizer": "adam", **CONSTANTS},
        [
            0.001 / (1.99e-4**0.5 + 0.01),
            0.001 / (1.99e-4**0.5 + 0.01) + 0.0039 / (1.09701e-3**0.5 + 0.01),
        ],
    ),
    # v = w = 1e-4; v = w = 0.99 * 1e-4 + 9e-4 = 9.99e-4.
    (
        {"optimizer": "amsgrad", **CONSTANTS},
        [0.001 / 0.02, 0.001 / 0.02 + 0.0039 / (9.99e-4**0.5 + 0.01)],
    ),
]


@pytest.mark.parametrize(("values", "expected"), GOLDEN, ids=lambda v: str(v)[:24])
def test_golden_two_steps(values: dict[str, Any], expected: list[float]) -> None:
    assert places(Rule.from_dict(values), [0.1, 0.3]) == pytest.approx(expected, rel=1e-5)


def test_golden_yogi_forgets_slower_than_adam() -> None:
    # After D = 1 a D of 0 leaves yogi's v where it is, and takes 1 % of adam's.
    for optimizer, left in ((Optimizer.YOGI, 1.0), (Optimizer.ADAM, 0.99)):
        current = ZERO
        seen = []
        for mean in (1.0, 0.0):
            update = contribution(1, {0: [mean, mean]}, base=current.version)
            current = merge(current, [update], Rule(optimizer=optimizer))
            seen.append(float(current.memory["second_moment/item"][0, 0]))
        assert seen[1] / seen[0] == pytest.approx(left)


def test_golden_amsgrad_keeps_the_largest() -> None:
    rule = Rule(optimizer=Optimizer.AMSGRAD)
    assert places(rule, [1.0])[0] == pytest.approx(0.01 * 0.1 / (0.1 + 0.001))
    ledger = Ledger(ZERO, rule)
    for mean in (1.0, 0.0, 0.0):
        ledger.merge([contribution(1, {0: [mean, mean]}, base=ledger.state.version)])
    memory = ledger.state.memory
    assert memory["largest_second_moment/item"][0, 0] == pytest.approx(0.01)
    assert memory["second_moment/item"][0, 0] < 0.01


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=5))
def test_momentum_zero_is_sgd(means: list[float]) -> None:
    plain = places(Rule(), means)
    assert places(Rule(optimizer=Optimizer.MOMENTUM, momentum=0.0), means) == plain


@pytest.mark.parametrize("optimizer", ADAPTIVE)
@given(size=st.floats(0.1, 100))
def test_an_adaptive_step_does_not_grow_with_the_mean(optimizer: Optimizer, size: float) -> None:
    rule = Rule(optimizer=optimizer)
    first = places(rule, [size])[0]
    assert 0.0 < first <= rule.server_learning_rate * (1.0 - rule.beta_1) / 0.1 * 1.001


@pytest.mark.parametrize("optimizer", list(Optimizer))
@given(means=st.lists(st.floats(-10, 10), min_size=1, max_size=4))
def test_rows_have_a_history_of_their_own(optimizer: Optimizer, means: list[float]) -> None:
    rule = Rule(optimizer=optimizer)
    alone, among = Ledger(ZERO, rule), Ledger(ZERO, rule)
    for mean in means:
        alone.merge([contribution(1, {3: [mean, 1.0]}, base=alone.state.version)])
        among.merge([contribution(1, {2: [5.0, 5.0]}, base=among.state.version)])
        among.merge([contribution(1, {3: [mean, 1.0]}, base=among.state.version)])
    for name in ("item", *(f"{slot}/item" for slot in SLOTS[optimizer])):
        left, right = ({**s.parameters, **s.memory} for s in (alone.state, among.state))
        assert np.array_equal(left[name][3], right[name][3])


def test_memory_is_float32_of_the_parameters_shape() -> None:
    for optimizer, slots in SLOTS.items():
        batch = [contribution(1, {0: [1.0, 1.0]}, bias=1.0)]
        after = merge(state(), batch, Rule(optimizer=optimizer))
        assert set(after.memory) == {f"{slot}/{n}" for slot in slots for n in ("item", "bias")}
        for name, array in after.memory.items():
            assert array.shape == after.parameters[name.partition("/")[2]].shape
            assert array.dtype == np.float32
