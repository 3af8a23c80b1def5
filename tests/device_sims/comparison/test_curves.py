"""Where a target is reached, and mean courses."""

from itertools import accumulate

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_sims.comparison.curves import Course, first_reach, mean_course

STEPS = st.lists(st.tuples(st.floats(0.0, 10.0), st.floats(0.0, 1.0)), min_size=1, max_size=12)


def course(steps: list[tuple[float, float]]) -> Course:
    return Course(tuple(accumulate(step for step, _ in steps)), tuple(y for _, y in steps))


@pytest.mark.parametrize(
    ("target", "expected"),
    [(0.1, 0.0), (0.2, 0.5), (0.3, 1.0), (0.35, 3.25), (0.4, 3.5), (0.51, None)],
)
def test_between_two_measurements_it_goes_in_a_straight_line(
    target: float, expected: float | None
) -> None:
    # It falls after the first peak: the first time counts, and a later one only above the peak.
    found = first_reach(Course((0.0, 1.0, 3.0, 4.0), (0.1, 0.3, 0.3, 0.5)), target)
    assert found == (None if expected is None else pytest.approx(expected))


def test_a_jump_at_one_place_reaches_there() -> None:
    assert first_reach(Course((2.0, 2.0), (0.0, 1.0)), 0.5) == 2.0


@given(STEPS, st.floats(0.01, 1.0))
def test_it_is_reached_there_and_not_before(
    steps: list[tuple[float, float]], target: float
) -> None:
    measured = course(steps)
    found = first_reach(measured, target)
    assert (found is None) == (max(measured.y) < target)
    if found is not None:
        before = [y for x, y in zip(measured.x, measured.y, strict=True) if x < found - 1e-9]
        assert all(y < target + 1e-9 for y in before)
        assert measured.x[0] <= found <= measured.x[-1]


@given(STEPS)
def test_the_mean_of_equal_courses_is_the_course(steps: list[tuple[float, float]]) -> None:
    measured = course(steps)
    found = mean_course([measured] * 3, points=7)
    expected = np.interp(found.x, measured.x, measured.y)
    assert found.mean == pytest.approx(expected, abs=1e-9)
    assert found.low == pytest.approx(found.high, abs=1e-9)


def test_a_mean_course_covers_what_all_cover() -> None:
    found = mean_course([Course((0.0, 10.0), (0.0, 1.0)), Course((2.0, 6.0), (0.4, 0.8))], points=3)
    assert found.x == (2.0, 4.0, 6.0)
    assert found.mean == pytest.approx((0.3, 0.5, 0.7))


def test_a_single_course_has_no_interval() -> None:
    found = mean_course([Course((0.0, 1.0), (0.1, 0.2))], points=2)
    assert (found.low, found.high) == ((None, None), (None, None))
