"""Rates: laws of the spacing, jumping clocks, and what is remembered."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator.rates import Rates

SPACING_S, BURST = 10.0, 3


def ask(rates: Rates, now: float, *, device: str = "a", spacing_s: float = SPACING_S) -> bool:
    trial = rates.trial(now)
    allowed = trial.allows("task", device, spacing_s=spacing_s, burst=BURST)
    rates.settle(trial)
    return allowed


def test_golden_a_burst_and_then_one_for_each_spacing() -> None:
    rates = Rates()
    assert [ask(rates, 0.0) for _ in range(5)] == [True, True, True, False, False]
    assert [ask(rates, at) for at in (9.9, 10.0, 10.1, 19.9, 20.0)] == [
        False,
        True,
        False,
        False,
        True,
    ]


@given(waits=st.lists(st.floats(0, 30), max_size=60))
def test_no_stretch_of_time_has_more_than_its_share_and_a_burst(waits: list[float]) -> None:
    rates, now, taken = Rates(), 0.0, []
    for wait in waits:
        now += wait
        if ask(rates, now):
            taken.append(now)
    for first, start in enumerate(taken):
        for last, end in enumerate(taken[first:], start=first):
            assert last - first + 1 <= (end - start) / SPACING_S + BURST + 1e-6


@given(waits=st.lists(st.floats(SPACING_S, 100), max_size=60))
def test_who_keeps_to_the_spacing_is_never_refused(waits: list[float]) -> None:
    rates, now = Rates(), 0.0
    for wait in waits:
        now += wait
        assert ask(rates, now)


@given(
    jumps=st.lists(st.sampled_from([-1e9, -1e3, -1.0, 0.0, 1.0, 1e3, 1e9]), min_size=1, max_size=40)
)
def test_a_clock_that_jumps_locks_nobody_out_and_lets_no_flood_in(jumps: list[float]) -> None:
    rates, now = Rates(), 0.0
    for jump in jumps:
        now += jump
        assert sum(ask(rates, now) for _ in range(100)) <= BURST
        now += SPACING_S
        assert ask(rates, now)


def test_what_is_not_settled_has_not_happened() -> None:
    """A batch that the database refused is handed in again."""
    rates = Rates()
    for _ in range(10):
        trial = rates.trial(0.0)
        taken = [trial.allows("task", "a", spacing_s=SPACING_S, burst=BURST) for _ in range(4)]
        assert taken == [True, True, True, False]
    assert len(rates) == 0


def test_devices_and_tasks_do_not_count_for_each_other() -> None:
    rates = Rates()
    for device in ("a", "b"):
        assert [ask(rates, 0.0, device=device) for _ in range(4)] == [True, True, True, False]
    trial = rates.trial(0.0)
    assert trial.allows("other", "a", spacing_s=SPACING_S, burst=BURST)


def test_without_an_interval_there_is_no_limit_and_nothing_to_remember() -> None:
    rates = Rates()
    assert all(ask(rates, 0.0, spacing_s=0.0) for _ in range(100))
    assert len(rates) == 0


def test_a_device_whose_burst_is_whole_again_is_forgotten() -> None:
    rates = Rates()
    for number in range(1_000):
        ask(rates, 0.1 * number, device=f"device-{number}")
    assert len(rates) <= SPACING_S / 0.1 + 1


def test_memory_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aggregator.rates.MOST_DEVICES", 10)
    rates = Rates()
    for number in range(100):
        ask(rates, 0.0, device=f"device-{number}")
    assert len(rates) == 10
    assert [ask(rates, 0.0, device="device-99") for _ in range(3)] == [True, True, False]
