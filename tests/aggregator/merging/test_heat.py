"""Heat: how well devices are counted, and the factor on a row."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator.merging import RowCorrection, Rule
from aggregator.merging.heat import MAX_RANK, REGISTERS, estimate, place
from tests.aggregator.merging.fleet import Ledger, contribution, moved, state

devices = st.lists(st.text(max_size=8), max_size=60)


def count(names: list[str]) -> float:
    registers = np.zeros((1, REGISTERS), np.uint8)
    for register, rank in map(place, names):
        registers[0, register] = max(registers[0, register], rank)
    return float(estimate(registers)[0])


@given(devices)
def test_a_device_counts_once_in_whatever_order(names: list[str]) -> None:
    assert count(names + names[::-1]) == count(sorted(set(names)))


@given(devices, st.text(max_size=8))
def test_one_more_device_never_counts_for_less(names: list[str], other: str) -> None:
    assert count(names) <= count([*names, other])


@given(st.text())
def test_places_are_in_range(name: str) -> None:
    register, rank = place(name)
    assert 0 <= register < REGISTERS
    assert 1 <= rank <= MAX_RANK


def test_golden_places() -> None:
    assert [place(name) for name in ("device-1", "device-2", "")] == [
        (43, 1),
        (5, 3),
        (52, 2),
    ]


@pytest.mark.parametrize("number", [1, 2, 5, 20, 100, 1_000, 20_000])
def test_counts_are_within_three_standard_errors(number: int) -> None:
    found = count([f"device-{i}" for i in range(number)])
    assert found == pytest.approx(number, rel=3 * 1.04 / REGISTERS**0.5)


def test_golden_a_row_that_one_of_ten_devices_touches() -> None:
    rule = Rule(row_correction=RowCorrection.HEAT, heat_limit=5.0)
    ledger = Ledger(state(), rule)
    names = [f"device-{i}" for i in range(10)]
    everybody = [contribution(i, {0: [1.0, 1.0]}, device=name) for i, name in enumerate(names)]
    everybody[3:5] = [
        contribution(i, {0: [1.0, 1.0], 4: [6.0, 0.0]}, base=0, device=names[i]) for i in (3, 4)
    ]
    everybody[7] = contribution(7, {0: [1.0, 1.0], 5: [2.0, 4.0]}, base=0, device=names[7])
    before = ledger.state
    ledger.merge(everybody)
    change = moved(before, ledger.state, "item")
    # Row 0 is everybody's; row 4 two devices': 10/2 * 12/10; row 5 would be by 10, held to 5.
    np.testing.assert_allclose(change[0], [1.0, 1.0], atol=1e-6)
    np.testing.assert_allclose(change[4], [6.0, 0.0], rtol=0.1)
    np.testing.assert_allclose(change[5], [1.0, 2.0], atol=1e-6)
    # Row 5 alone again: its device is known, so that nothing is counted twice.
    before = ledger.state
    ledger.merge([contribution(20, {5: [1.0, 1.0]}, base=1, device=names[7])])
    np.testing.assert_allclose(moved(before, ledger.state, "item")[5], [5.0, 5.0], atol=1e-6)


def test_without_a_device_every_update_is_the_same_ones() -> None:
    ledger = Ledger(state(), Rule(row_correction=RowCorrection.HEAT))
    before = ledger.state
    ledger.merge([contribution(i, {i: [2.0, 2.0]}) for i in (1, 2)])
    np.testing.assert_allclose(moved(before, ledger.state, "item")[1], [1.0, 1.0], atol=1e-6)
