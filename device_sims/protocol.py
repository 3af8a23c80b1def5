"""The evaluation protocol: every number about quality in this project is made here.

One held-out item of each user is ranked twice: among 99 candidates that the user never interacted
with (drawn once, in `device_sims.datasets.split`, and the same for every model), and among the
whole catalogue. The *rank* is the number of competing items that do not score lower, so a tie
counts against the held-out item, and so does a score that is not a number. With rank r, counted
from 0, a user has

    hit = 1 if r < 10 else 0        gain = 1 / log2(r + 2) if r < 10 else 0

and HR@10 and NDCG@10 are their means over all users.

Who competes in the full rank: every item that the user had not used before the held-out one. So
for the validation item the training items are masked, and the test item, which lies in the future,
competes; for the test item the training items and the validation item are masked.

Where users may use an item again (`Split.repeats`), the task is another one: to foresee the next
action. What was done before may be done again, so nothing is masked and no candidates are drawn:
the held-out action is ranked among all items, and its one rank gives both pairs of figures.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from device_sims.datasets.interactions import IntArray
from device_sims.datasets.split import Split

__all__ = [
    "TOP",
    "HeldOut",
    "Quality",
    "Ranks",
    "Scorer",
    "best_round",
    "evaluate",
    "exposure",
    "own_frequency",
    "popularity",
    "rank",
]

TOP = 10
_SCORES_AT_ONCE = 1 << 22

_Scores = NDArray[np.floating[Any]]
HeldOut = Literal["validation", "test"]
Scorer = Callable[[IntArray], _Scores]
"""Takes users (int64 [n]) and returns a raw score for every item (floating [n, items]).

For scores already at hand that is `scores.__getitem__`.
"""


@dataclass(frozen=True, kw_only=True)
class Quality:
    """How well a model ranks the held-out items; each a mean over all users, from 0 to 1.

    Attributes:
        hr_at_10: Share of users whose item is in the first ten among the 99 candidates; of a
            next-action task, in the first ten of the catalogue.
        ndcg_at_10: The same, discounted by place.
        full_hr_at_10: Share of users whose item is in the first ten of the catalogue.
        full_ndcg_at_10: The same, discounted by place.
    """

    hr_at_10: float
    ndcg_at_10: float
    full_hr_at_10: float
    full_ndcg_at_10: float

    def to_dict(self) -> dict[str, float]:
        """Return the four figures by name, for JSON."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class Ranks:
    """Where the held-out items of some users are.

    Attributes:
        users: int64 [n], ascending.
        sampled: int64 [n], ranks among the candidates.
        full: int64 [n], ranks among the whole catalogue.
    """

    users: IntArray
    sampled: IntArray
    full: IntArray

    def of(self, users: IntArray) -> "Ranks":
        """Those of some of the users; who is not among them is left out."""
        taken = np.isin(self.users, users)
        return Ranks(self.users[taken], self.sampled[taken], self.full[taken])

    def quality(self) -> Quality:
        """The means; 0 where there is no user."""
        hr_at_10, ndcg_at_10 = _means(self.sampled)
        full_hr_at_10, full_ndcg_at_10 = _means(self.full)
        return Quality(
            hr_at_10=hr_at_10,
            ndcg_at_10=ndcg_at_10,
            full_hr_at_10=full_hr_at_10,
            full_ndcg_at_10=full_ndcg_at_10,
        )


def evaluate(scorer: Scorer, split: Split, *, which: HeldOut) -> Quality:
    """Rank one held-out item of every user.

    Users are scored in batches, so that about 4 million scores are in memory at once.

    Args:
        scorer: The model.
        split: The data set.
        which: Rank the validation items or the test items.

    Raises:
        ValueError: `scorer` returns something of another shape than [users, items].
    """
    return rank(scorer, split, which=which).quality()


def rank(scorer: Scorer, split: Split, *, which: HeldOut, users: IntArray | None = None) -> "Ranks":
    """Rank one held-out item of some users; see ``evaluate``.

    Args:
        scorer: The model.
        split: The data set.
        which: Rank the validation items or the test items.
        users: int64, ascending; None for all.

    Raises:
        ValueError: `scorer` returns something of another shape than [users, items].
    """
    held_out = split.validation if which == "validation" else split.test
    chosen = np.arange(split.user_count) if users is None else users
    sampled, full = np.empty_like(chosen), np.empty_like(chosen)
    batch = max(1, _SCORES_AT_ONCE // split.item_count)
    for first in range(0, len(chosen), batch):
        at = slice(first, first + batch)
        now = chosen[at]
        scores = scorer(now)
        if scores.shape != (len(now), split.item_count):
            raise ValueError(
                f"scores of shape {scores.shape} for {len(now)} users and {split.item_count} items"
            )
        mine = np.take_along_axis(scores, held_out[now, None], axis=1)
        rows, items = _masked(split, now, which)
        full[at] = _full_ranks(scores, mine, rows, items)
        sampled[at] = (
            full[at] if split.repeats else _sampled_ranks(scores, mine, split.candidates[now])
        )
    return Ranks(chosen, sampled, full)


def exposure(scorer: Scorer, split: Split, item: int) -> float:
    """Return the share of users to whom an item is shown: ER@10, the exposure ratio.

    As in Zhang et al., "PipAttack: Poisoning Federated Recommender Systems for Manipulating Item
    Promotion", WSDM 2022, section 5: of the users who never interacted with it, held-out items
    included, those who have it in the first ten of all the items that they never interacted with.
    A tie counts against it.

    Args:
        scorer: The model.
        split: The data set; not one of repeated actions.
        item: Which item.
    """
    shown = asked = 0
    for user in range(split.user_count):
        own = np.append(split.train.items_of(user), [split.validation[user], split.test[user]])
        if item in own:
            continue
        (scores,) = scorer(np.array([user])).astype(np.float64)
        scores[own] = -np.inf
        shown += int(np.count_nonzero(~(scores < scores[item])) - 1 < TOP)
        asked += 1
    return shown / max(asked, 1)


def popularity(split: Split) -> Scorer:
    """Return the baseline that every model must beat: an item's count in the training part."""
    counts = np.bincount(split.train.items, minlength=split.item_count).astype(np.float64)
    return lambda users: np.broadcast_to(counts, (len(users), split.item_count))


def own_frequency(split: Split, *, which: HeldOut) -> Scorer:
    """Return the baseline of a next-action task: how often the user did that before.

    An item's share of the training part decides between what the user did equally often.

    Args:
        split: The data set.
        which: What is to be ranked: before the test items lies the validation item too.
    """
    popular = np.bincount(split.train.items, minlength=split.item_count) / (
        len(split.train.items) + 1
    )

    def scores(users: IntArray) -> _Scores:
        counts = np.tile(popular, (len(users), 1))
        np.add.at(counts, _trained(split, users), 1.0)
        if which == "test":
            counts[np.arange(len(users)), split.validation[users]] += 1.0
        return counts

    return scores


def best_round(validation: Sequence[Quality]) -> int:
    """Return the position of the round to report, picked on validation and never on test.

    That is the highest NDCG@10; HR@10 breaks a tie, and then the earlier round.

    Args:
        validation: The validation quality of each round, in order.

    Raises:
        ValueError: `validation` is empty.
    """
    if not validation:
        raise ValueError("no round to pick from")
    return max(
        range(len(validation)),
        key=lambda at: (validation[at].ndcg_at_10, validation[at].hr_at_10, -at),
    )


def _sampled_ranks(scores: _Scores, mine: _Scores, candidates: IntArray) -> IntArray:
    """Count for each row the candidates (-1 = none) that do not score below `mine` ([rows, 1])."""
    rivals = np.take_along_axis(scores, candidates, axis=1)
    counts: IntArray = np.count_nonzero(~(rivals < mine) & (candidates >= 0), axis=1)
    return counts


def _full_ranks(scores: _Scores, mine: _Scores, rows: IntArray, items: IntArray) -> IntArray:
    """Count for each row the items that do not score below `mine` ([rows, 1]).

    The masked ones, `items[i]` in row `rows[i]`, are counted and taken off again; to overwrite
    their scores would change or copy what the caller handed in.
    """
    not_below: IntArray = np.count_nonzero(~(scores < mine), axis=1)
    masked = np.bincount(rows[~(scores[rows, items] < mine[rows, 0])], minlength=len(scores))
    itself = 1
    return not_below - masked - itself


def _masked(split: Split, users: IntArray, which: HeldOut) -> tuple[IntArray, IntArray]:
    """Return the items that are masked for `users`: positions in `users`, items."""
    if split.repeats:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    rows, items = _trained(split, users)
    if which == "validation":
        return rows, items
    return np.append(rows, np.arange(len(users))), np.append(items, split.validation[users])


def _trained(split: Split, users: IntArray) -> tuple[IntArray, IntArray]:
    """Return the training items of `users`: positions in `users`, items."""
    lengths = split.train.starts[users + 1] - split.train.starts[users]
    rows = np.repeat(np.arange(len(users)), lengths)
    before = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    within = np.arange(len(rows)) - before[rows]
    return rows, split.train.items[split.train.starts[users][rows] + within]


def _means(ranks: IntArray) -> tuple[float, float]:
    """Return HR@10 and NDCG@10; of nobody they are 0."""
    if not len(ranks):
        return 0.0, 0.0
    hits = ranks < TOP
    gains = np.where(hits, 1.0 / np.log2(ranks + 2.0), 0.0)
    return float(hits.mean()), float(gains.mean())
