"""Interactions that come as time goes by, as their timestamps say.

The earliest ``history`` of all interactions are there at the start, the latest ``future`` of all
never come while the run lasts. Between the two, time in the data is stretched or shortened evenly
to the hours of the run.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from device_sims.datasets import DatasetError, Histories, Split
from device_sims.datasets.interactions import IntArray
from device_sims.fleet import as_interactions
from device_sims.scenario import Scenario
from edge_agent.interactions import Interaction

__all__ = ["Replay", "replay_of"]

TOGETHER_S = 60.0
"""What comes within so many seconds is written down together."""
LEAST_HISTORY = 2
"""Interactions that a user must have behind it to be examined, as in the split."""


class Replay:
    """Says what has happened by when.

    Args:
        split: the data.
        history: share of all interactions that are there at the start.
        future: share of all that come after the end.
        duration_s: how long the run is.

    Raises:
        DatasetError: the times of the data are all the same.
    """

    def __init__(self, split: Split, *, history: float, future: float, duration_s: float) -> None:
        self._split = split
        self._starts, self._items, self._times, self._context = _joined(split)
        ordered = np.sort(self._times)
        first = ordered[max(0, round(history * len(ordered)) - 1)]
        last = ordered[min(len(ordered), round((1.0 - future) * len(ordered))) - 1]
        if last <= first:
            raise DatasetError(
                f"{split.name}: no time passes between the history and the future that are asked "
                "for; expected interactions at different times"
            )
        self._at_s = (self._times - first) * (duration_s / float(last - first))
        self._duration_s = duration_s

    def history(self, user: int) -> Sequence[Interaction]:
        """What is there at the start."""
        own = slice(self._starts[user], self._starts[user + 1])
        return self._between(own.start, own.start + self._past(user, 0.0))

    def arrivals(self, user: int) -> Iterator[tuple[float, Sequence[Interaction]]]:
        """What comes later, with the time in seconds since the run began."""
        begin = int(self._starts[user])
        at, end = begin + self._past(user, 0.0), begin + self._past(user, self._duration_s)
        while at < end:
            upto = self._past(user, float(self._at_s[at]) + TOGETHER_S) + begin
            upto = min(upto, end)
            yield float(self._at_s[upto - 1]), self._between(at, upto)
            at = upto

    def split_at(self, now_s: float) -> tuple[Split, IntArray]:
        """The data as of a moment of the run: what each user does next is its test item.

        Returns:
            The split, and the users who do something next and did enough before.
        """
        counts, now_s = np.diff(self._starts), min(now_s, self._duration_s)
        inside = np.concatenate([[0], np.cumsum(self._at_s <= now_s)])
        past = inside[self._starts[1:]] - inside[self._starts[:-1]]
        users = np.flatnonzero((past >= LEAST_HISTORY) & (past < counts))
        test = self._starts[:-1] + np.clip(past, LEAST_HISTORY, counts - 1)
        validation = test - 1
        user_of = np.repeat(np.arange(len(counts)), counts)
        train = np.arange(len(user_of)) < validation[user_of]
        starts = np.concatenate([[0], np.cumsum(validation - self._starts[:-1])])
        return (
            replace(
                self._split,
                train=Histories(
                    starts=starts,
                    items=self._items[train],
                    times=self._times[train],
                    context=self._context[train],
                ),
                validation=self._items[validation],
                validation_times=self._times[validation],
                validation_context=self._context[validation],
                test=self._items[test],
                test_times=self._times[test],
                test_context=self._context[test],
            ),
            users,
        )

    def _past(self, user: int, now_s: float) -> int:
        """How many of a user's interactions there were by then."""
        own = self._at_s[self._starts[user] : self._starts[user + 1]]
        return int(np.searchsorted(own, now_s, side="right"))

    def _between(self, begin: int, end: int) -> Sequence[Interaction]:
        at = slice(begin, end)
        return as_interactions(
            self._split.context, self._items[at], self._times[at], self._context[at]
        )


def replay_of(scenario: Scenario, split: Split) -> Replay | None:
    """Of a scenario's data; None where all of it is there from the start.

    Raises:
        DatasetError: see ``Replay``.
    """
    data = scenario.data
    if not data.replay:
        return None
    duration_s = 3600.0 * scenario.run.hours
    return Replay(split, history=data.history, future=data.future, duration_s=duration_s)


def _joined(split: Split) -> tuple[IntArray, IntArray, IntArray, IntArray]:
    """Starts, items, times and context of all interactions, each user's in the order of time."""
    ends = split.train.starts[1:]
    starts = split.train.starts + 2 * np.arange(split.user_count + 1)

    def joined(train: IntArray, validation: IntArray, test: IntArray) -> IntArray:
        both = np.stack([validation, test], axis=1).reshape(
            2 * len(validation), *validation.shape[1:]
        )
        return np.insert(train, np.repeat(ends, 2), both, axis=0)

    return (
        starts,
        joined(split.train.items, split.validation, split.test),
        joined(split.train.times, split.validation_times, split.test_times),
        joined(split.train.context, split.validation_context, split.test_context),
    )
