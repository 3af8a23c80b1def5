"""When the next local update may begin."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.schedule import LONGEST_RETRY_S, Schedule
from tests.edge_agent.fakes import Clock


def schedule(clock: Clock, not_before: float = 0.0) -> Schedule:
    return Schedule(not_before, clock=clock, rng=np.random.default_rng(0))


@given(st.floats(0.0, 1e6))
def test_interval_is_a_least_time_with_little_jitter(interval_s: float) -> None:
    clock = Clock()
    planned = schedule(clock)
    planned.rest(interval_s)
    wait = planned.due_at(interval_s) - clock.now
    assert interval_s - 1e-3 <= wait <= interval_s * 1.1 + 1e-3


def test_back_off_grows_and_is_forgotten_after_success() -> None:
    clock = Clock()
    planned = schedule(clock)
    waits = []
    for _ in range(40):
        planned.failed(transient=True)
        waits.append(planned.not_before - clock.now)
        clock.now = planned.not_before
    assert waits[0] <= 2.0
    assert max(waits) <= LONGEST_RETRY_S
    assert max(waits[20:]) > 100.0
    planned.succeeded()
    planned.failed(transient=True)
    assert planned.not_before - clock.now <= 2.0


def test_a_permanent_failure_ends_with_an_announcement() -> None:
    clock = Clock()
    planned = schedule(clock)
    planned.failed(transient=False)
    assert planned.due_at(1.0) - clock.now == LONGEST_RETRY_S
    planned.announced()
    assert planned.due_at(1.0) - clock.now <= 2.0


def test_a_shorter_interval_or_an_older_clock_does_not_wait_for_the_old_time() -> None:
    clock = Clock()
    planned = schedule(clock, clock.now + 1e9)
    assert planned.due_at(5.0) - clock.now == LONGEST_RETRY_S
    clock.now += LONGEST_RETRY_S
    assert planned.due_at(5.0) <= clock.now
