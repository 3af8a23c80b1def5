"""Quality along an axis: where it first reaches a target, and the mean course over seeds."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from device_sims.comparison.intervals import estimate

__all__ = ["POINTS", "Course", "MeanCourse", "first_reach", "mean_course"]

POINTS = 60
"""Of a mean course."""


@dataclass(frozen=True, slots=True)
class Course:
    """What one run measured along an axis.

    Attributes:
        x: where, in increasing order (hours, bytes, joules); equal neighbours are allowed.
        y: the quality there.
    """

    x: tuple[float, ...]
    y: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class MeanCourse:
    """The mean of several runs, and the ends of its 95 % interval, None with a single run.

    Attributes:
        x: the same places for each.
        mean: of the quality.
        low: lower ends.
        high: upper ends.
    """

    x: tuple[float, ...]
    mean: tuple[float, ...]
    low: tuple[float | None, ...]
    high: tuple[float | None, ...]

    def to_dict(self) -> dict[str, Any]:
        """As a JSON-ready map."""
        return asdict(self)


def first_reach(course: Course, target: float) -> float | None:
    """Where the quality is at the target for the first time.

    Between two measurements it is taken to go in a straight line. A course that starts at the
    target or above reaches it at its first place.

    Args:
        course: at least one measurement.
        target: the quality.

    Returns:
        None if it is never reached.
    """
    if course.y[0] >= target:
        return course.x[0]
    points = list(zip(course.x, course.y, strict=True))
    for (x_0, y_0), (x_1, y_1) in pairwise(points):
        if y_1 >= target:
            return x_0 + (x_1 - x_0) * (target - y_0) / (y_1 - y_0)
    return None


def mean_course(courses: Sequence[Course], points: int = POINTS) -> MeanCourse:
    """The mean course, over the stretch that all of them cover.

    Args:
        courses: at least one, each with at least one measurement.
        points: how many places, evenly spaced; one where the stretch has no length.
    """
    first = max(course.x[0] for course in courses)
    last = max(first, min(course.x[-1] for course in courses))
    places = np.linspace(first, last, points if last > first else 1)
    values = np.array([np.interp(places, course.x, course.y) for course in courses])
    found = [estimate(column.tolist()) for column in values.T]
    return MeanCourse(
        x=tuple(places.tolist()),
        mean=tuple(one.mean for one in found),
        low=tuple(one.low for one in found),
        high=tuple(one.high for one in found),
    )
