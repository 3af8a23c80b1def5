"""Cached calibration: golden numbers, and what the memory holds."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given

from aggregator.merging import Contribution, Kind, Rule, ServerState, merge
from tests.aggregator.merging.fleet import (
    DEVICES,
    ITEMS,
    WIDTH,
    Ledger,
    contribution,
    fedavg,
    moved,
    random_batch,
    seeds,
    state,
)
from wire.delta import Delta, RowBlock

RULE = Rule(kind=Kind.CA2FL)


def one_of_each(rng: np.random.Generator, version: int) -> list[Contribution]:
    batch: list[Contribution] = []
    while len(batch) < len(DEVICES):
        batch += random_batch(rng, version, stale=False)
    return [
        replace(c, id=i, device=device)
        for i, (c, device) in enumerate(zip(batch, DEVICES, strict=False))
    ]


@given(rng=seeds)
def test_a_buffer_of_every_device_is_fedavg_whatever_they_said_before(
    rng: np.random.Generator,
) -> None:
    ledger = Ledger(state(), RULE)
    for version in range(3):
        batch = one_of_each(rng, version)
        expected = fedavg(ledger.state, batch, examples=False)
        ledger.merge(batch)
        for name, array in expected.parameters.items():
            np.testing.assert_allclose(ledger.state.parameters[name], array, atol=1e-5)


@given(rng=seeds)
def test_the_memory_is_the_sum_of_each_devices_newest_delta(rng: np.random.Generator) -> None:
    ledger = Ledger(state(), RULE)
    newest: dict[str, Delta] = {}
    for version in range(4):
        batch = random_batch(rng, version)
        ledger.merge(batch)
        newest |= {c.device: c.delta for c in batch}
    table, bias = np.zeros((ITEMS, WIDTH)), np.zeros(3)
    for delta in newest.values():
        block = delta["item"]
        assert isinstance(block, RowBlock)
        table[block.rows] += block.values
        bias += np.asarray(delta.get("bias", 0.0))
    memory = ledger.state.memory
    np.testing.assert_allclose(memory["cached/item"], table, atol=1e-5)
    np.testing.assert_allclose(memory.get("cached/bias", np.zeros(3)), bias, atol=1e-5)
    assert memory["cached_devices"].tolist() == [len(newest)]


def test_golden_three_devices_of_which_one_sends_again() -> None:
    ledger = Ledger(state(), RULE)
    first = {"a": [1.0, 0.0], "b": [3.0, 0.0], "c": [5.0, 6.0]}
    ledger.merge([contribution(i, {0: first[d]}, device=d) for i, d in enumerate(first)])
    before = ledger.state
    # h = (9/3, 6/3); v = h + (D_a - h_a) = (3 + 2 - 1, 2 + 4 - 0) in row 0, and D_a in row 1.
    ledger.merge([contribution(9, {0: [2.0, 4.0], 1: [7.0, 7.0]}, device="a")])
    np.testing.assert_allclose(moved(before, ledger.state, "item")[0], [4.0, 6.0], atol=1e-5)
    np.testing.assert_allclose(moved(before, ledger.state, "item")[1], [7.0, 7.0], atol=1e-5)
    np.testing.assert_allclose(ledger.state.memory["cached/item"][0], [10.0, 10.0], atol=1e-5)


def test_what_was_merged_before_the_kind_was_chosen_does_not_count() -> None:
    ledger = Ledger(state(), Rule())
    ledger.merge([contribution(1, {0: [8.0, 8.0]}, device="a")])
    ledger.rule = RULE
    before = ledger.state
    ledger.merge([contribution(2, {0: [1.0, 2.0]}, device="a")])
    np.testing.assert_allclose(moved(before, ledger.state, "item")[0], [1.0, 2.0], atol=1e-5)
    np.testing.assert_allclose(ledger.state.memory["cached/item"][0], [1.0, 2.0])


def test_a_previous_delta_without_its_version_is_refused() -> None:
    update = contribution(2, {0: [1.0, 2.0]}, device="a")
    with pytest.raises(ValueError, match="update 2 does not say which version"):
        merge(state(), [replace(update, previous=update.delta)], RULE)


def test_a_device_twice_in_a_buffer_counts_once_and_its_newest_stays() -> None:
    zero = ServerState(0, {"item": np.zeros((ITEMS, WIDTH), np.float32)})
    twice = [contribution(i, {0: [float(i), 0.0]}, bias=None, device="a") for i in (1, 3)]
    after = merge(zero, twice, RULE)
    assert after.parameters["item"][0].tolist() == [2.0, 0.0]
    assert after.memory["cached/item"][0].tolist() == [3.0, 0.0]
    assert after.memory["cached_devices"].tolist() == [1]
