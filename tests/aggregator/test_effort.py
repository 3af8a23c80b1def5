from aggregator.effort import Effort
from tests.aggregator.workshop import ManualClock


def test_work_rests_so_that_it_takes_its_share() -> None:
    clock, effort = ManualClock(), Effort()
    assert effort.rested_at(0.1) == float("-inf")
    begin = clock.now
    with effort.timed(clock):
        clock.now += 0.5
    assert effort.rested_at(0.1) == begin + 5.0


def test_work_that_takes_no_time_need_not_rest() -> None:
    clock, effort = ManualClock(), Effort()
    with effort.timed(clock):
        pass
    assert effort.rested_at(0.1) == clock.now
