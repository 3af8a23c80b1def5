"""What is fixed before any model is seen: training, validation, test, and who the test item meets.

Leave-latest-out: of every user the latest interaction is the test item, the second latest the
validation item, and all earlier ones are for training. Of interactions at the same time the one
that comes first in the file counts as the latest. That is the usual reading in this field
(`rank(method="first", ascending=False)` over the times, as in the evaluations that follow He et
al., "Neural Collaborative Filtering", WWW 2017). It matters: on MovieLens-100K, where such ties are
many, the full-rank NDCG@10 of popularity is .039 so, and .043 the other way round.
"""

from dataclasses import dataclass

import numpy as np

from device_sims.datasets.errors import DatasetError
from device_sims.datasets.interactions import (
    MINIMUM_INTERACTIONS,
    ContextField,
    IntArray,
    Interactions,
)

__all__ = ["CANDIDATES", "CANDIDATE_SEED", "Histories", "Split", "split_latest"]

CANDIDATES = 99
CANDIDATE_SEED = 2011


@dataclass(frozen=True, kw_only=True, eq=False)
class Histories:
    """Items of every user in time order, as compressed sparse rows. The arrays are read-only.

    Attributes:
        starts: int64 [users + 1]; user u has positions starts[u] to starts[u + 1].
        items: int64 [n].
        times: int64 [n], beside `items`.
        context: int64 [n, fields], beside `items`.
    """

    starts: IntArray
    items: IntArray
    times: IntArray
    context: IntArray

    def __post_init__(self) -> None:
        for array in (self.starts, self.items, self.times, self.context):
            array.setflags(write=False)

    @property
    def lengths(self) -> IntArray:
        """How many items each user has, int64 [users]."""
        return np.diff(self.starts)

    def items_of(self, user: int) -> IntArray:
        """Return the items of one user, int64 [own], oldest first; a view."""
        return self.items[self.starts[user] : self.starts[user + 1]]

    def times_of(self, user: int) -> IntArray:
        """Return the times beside `items_of(user)`; a view."""
        return self.times[self.starts[user] : self.starts[user + 1]]

    def context_of(self, user: int) -> IntArray:
        """Return the context beside `items_of(user)`, int64 [own, fields]; a view."""
        return self.context[self.starts[user] : self.starts[user + 1]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """One data set, divided for training and for the evaluation protocol. Arrays are read-only.

    Within a user no training time is later than the validation time, and that one is not later than
    the test time. Training, validation and test share no (user, item) pair, unless `repeats`.

    Attributes:
        name: The data set's name.
        user_count: Users.
        item_count: Items in the catalogue.
        context: The fields of the context, in the order of its columns.
        repeats: Whether a user may use an item again.
        train: What a model may learn from; at least one item a user.
        validation: int64 [users], the second latest item of each.
        validation_times: int64 [users], beside `validation`.
        validation_context: int64 [users, fields], beside `validation`.
        test: int64 [users], the latest item of each.
        test_times: int64 [users], beside `test`.
        test_context: int64 [users, fields], beside `test`.
        candidates: int64 [users, 99], ascending distinct items that the user never interacted
            with, held-out ones included. A user with fewer such items has all of them, and then
            -1 to the end of the row. With `repeats` there are none: int64 [users, 0].
    """

    name: str
    user_count: int
    item_count: int
    context: tuple[ContextField, ...]
    repeats: bool = False
    train: Histories
    validation: IntArray
    validation_times: IntArray
    validation_context: IntArray
    test: IntArray
    test_times: IntArray
    test_context: IntArray
    candidates: IntArray

    def __post_init__(self) -> None:
        for array in (
            self.validation,
            self.validation_times,
            self.validation_context,
            self.test,
            self.test_times,
            self.test_context,
            self.candidates,
        ):
            array.setflags(write=False)


def split_latest(interactions: Interactions, *, candidate_seed: int = CANDIDATE_SEED) -> Split:
    """Divide `interactions`, and draw the candidates that every model will be ranked against.

    Args:
        interactions: Any data set; its rows at equal times are in file order.
        candidate_seed: Results compare only between splits with the same seed.

    Raises:
        DatasetError: A user has fewer than `MINIMUM_INTERACTIONS` interactions.
    """
    ends = np.cumsum(np.bincount(interactions.users, minlength=interactions.user_count))
    starts = np.concatenate([[0], ends])
    if np.diff(starts).min(initial=MINIMUM_INTERACTIONS) < MINIMUM_INTERACTIONS:
        raise DatasetError(
            f"{interactions.name}: a user has fewer than {MINIMUM_INTERACTIONS} interactions, "
            "too few for training, validation and test"
        )
    rows = np.arange(len(interactions))
    by_recency = np.lexsort((-rows, interactions.times, interactions.users))
    test, validation = by_recency[ends - 1], by_recency[ends - 2]
    train = np.delete(rows, np.concatenate([test, validation]))
    return Split(
        name=interactions.name,
        user_count=interactions.user_count,
        item_count=interactions.item_count,
        context=interactions.context,
        repeats=interactions.repeats,
        train=Histories(
            starts=starts - 2 * np.arange(len(starts)),
            items=interactions.items[train],
            times=interactions.times[train],
            context=interactions.context_ids[train],
        ),
        validation=interactions.items[validation],
        validation_times=interactions.times[validation],
        validation_context=interactions.context_ids[validation],
        test=interactions.items[test],
        test_times=interactions.times[test],
        test_context=interactions.context_ids[test],
        candidates=_draw_candidates(interactions, starts, candidate_seed),
    )


def _draw_candidates(interactions: Interactions, starts: IntArray, seed: int) -> IntArray:
    """Draw `CANDIDATES` items for each user, uniformly and without repetition."""
    if interactions.repeats:
        return np.zeros((interactions.user_count, 0), dtype=np.int64)
    generator = np.random.default_rng(seed)
    drawn = np.full((interactions.user_count, CANDIDATES), -1, dtype=np.int64)
    for user in range(interactions.user_count):
        seen = np.sort(interactions.items[starts[user] : starts[user + 1]])
        unseen_count = interactions.item_count - len(seen)
        count = min(CANDIDATES, unseen_count)
        ranks = np.sort(generator.choice(unseen_count, count, replace=False, shuffle=False))
        drawn[user, :count] = _unseen(seen, ranks)
    return drawn


def _unseen(seen: IntArray, ranks: IntArray) -> IntArray:
    """Return the items at `ranks` (0 = smallest) of those not in `seen`, which is ascending.

    Before seen[i] there are seen[i] - i unseen items, so the unseen item of rank r stands behind
    as many seen ones as have seen[i] - i <= r. No list of the unseen items is made.
    """
    return ranks + np.searchsorted(seen - np.arange(len(seen)), ranks, side="right")
