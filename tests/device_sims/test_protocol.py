"""Laws of the evaluation protocol, golden ranks, and the published row it must give."""

from dataclasses import replace
from math import log2
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from device_sims import protocol
from device_sims.datasets import Split, load_movielens, split_latest, synthesise
from device_sims.datasets.split import Histories
from device_sims.protocol import (
    Quality,
    best_round,
    evaluate,
    exposure,
    own_frequency,
    popularity,
)

MOVIELENS = Path(__file__).parents[3] / "shared" / "data" / "ml-100k" / "ratings.dat"
WORST = Quality(hr_at_10=0, ndcg_at_10=0, full_hr_at_10=0, full_ndcg_at_10=0)
BEST = Quality(hr_at_10=1, ndcg_at_10=1, full_hr_at_10=1, full_ndcg_at_10=1)
HELD_OUT: list[Literal["validation", "test"]] = ["validation", "test"]
# Small enough that some users have fewer than 99 candidates.
SPLIT = split_latest(synthesise(users=40, items=120, mean_interactions=20))
which_one = pytest.mark.parametrize("which", HELD_OUT)


def random_scores(split: Split, seed: int) -> NDArray[np.float32]:
    """A few distinct values only, so that ties are common."""
    rng = np.random.default_rng(seed)
    return rng.integers(30, size=(split.user_count, split.item_count)).astype(np.float32)


def held_out(split: Split, which: Literal["validation", "test"]) -> NDArray[np.int64]:
    return split.test if which == "test" else split.validation


def by_hand(
    split: Split, scores: NDArray[np.float32], which: Literal["validation", "test"]
) -> Quality:
    """The protocol as its docstring says it, one user and one item at a time."""
    sums = np.zeros(4)
    for user, item in enumerate(held_out(split, which).tolist()):
        masked = set(split.train.items_of(user).tolist()) | {item}
        if which == "test":
            masked.add(int(split.validation[user]))
        sampled = [rival for rival in split.candidates[user].tolist() if rival >= 0]
        rivals = [sampled, sorted(set(range(split.item_count)) - masked)]
        for at, names in enumerate(rivals):
            rank = sum(scores[user, rival] >= scores[user, item] for rival in names)
            if rank < 10:
                sums[2 * at : 2 * at + 2] += (1, 1 / log2(rank + 2))
    return Quality(**dict(zip(WORST.to_dict(), (sums / split.user_count).tolist(), strict=True)))


def close(found: Quality, expected: Quality) -> None:
    assert found.to_dict() == pytest.approx(expected.to_dict(), abs=1e-12)


@which_one
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=15)
def test_it_is_what_its_docstring_says(which: Literal["validation", "test"], seed: int) -> None:
    scores = random_scores(SPLIT, seed)
    close(evaluate(scores.__getitem__, SPLIT, which=which), by_hand(SPLIT, scores, which))


@which_one
@given(constant=st.floats(allow_nan=True, allow_infinity=True))
@settings(max_examples=20)
def test_a_constant_scorer_is_worst(which: Literal["validation", "test"], constant: float) -> None:
    """Ties count against the held-out item, and so does a model that broke down."""
    scores = np.full((SPLIT.user_count, SPLIT.item_count), constant)
    assert evaluate(scores.__getitem__, SPLIT, which=which) == WORST


@which_one
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=15)
def test_a_scorer_that_knows_is_perfect(which: Literal["validation", "test"], seed: int) -> None:
    scores = random_scores(SPLIT, seed)
    scores[np.arange(SPLIT.user_count), held_out(SPLIT, which)] = 31
    assert evaluate(scores.__getitem__, SPLIT, which=which) == BEST


@which_one
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=15)
def test_names_of_items_do_not_matter(which: Literal["validation", "test"], seed: int) -> None:
    renamed = np.random.default_rng(seed).permutation(SPLIT.item_count)
    scores = random_scores(SPLIT, seed)
    permuted = np.empty_like(scores)
    permuted[:, renamed] = scores
    split = replace(
        SPLIT,
        train=replace(SPLIT.train, items=renamed[SPLIT.train.items]),
        validation=renamed[SPLIT.validation],
        test=renamed[SPLIT.test],
        candidates=np.where(SPLIT.candidates < 0, -1, renamed[SPLIT.candidates]),
    )
    assert evaluate(permuted.__getitem__, split, which=which) == evaluate(
        scores.__getitem__, SPLIT, which=which
    )


@given(seed=st.integers(0, 2**32 - 1), scale=st.floats(0.1, 10), shift=st.floats(-5, 5))
@settings(max_examples=15)
def test_only_the_order_of_scores_counts(seed: int, scale: float, shift: float) -> None:
    scores = random_scores(SPLIT, seed).astype(np.float64)
    stretched = np.exp(scores / 10) * scale + shift
    assert evaluate(stretched.__getitem__, SPLIT, which="test") == evaluate(
        scores.__getitem__, SPLIT, which="test"
    )


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=15)
def test_scores_of_masked_items_do_not_count(seed: int) -> None:
    scores = random_scores(SPLIT, seed)
    raised = scores.copy()
    users = np.repeat(np.arange(SPLIT.user_count), np.diff(SPLIT.train.starts))
    raised[users, SPLIT.train.items] = 99
    assert evaluate(raised.__getitem__, SPLIT, which="validation") == evaluate(
        scores.__getitem__, SPLIT, which="validation"
    )

    raised[np.arange(SPLIT.user_count), SPLIT.validation] = 99
    assert evaluate(raised.__getitem__, SPLIT, which="test") == evaluate(
        scores.__getitem__, SPLIT, which="test"
    )


def test_the_future_competes_when_the_validation_item_is_ranked() -> None:
    scores = np.zeros((SPLIT.user_count, SPLIT.item_count))
    users = np.arange(SPLIT.user_count)
    scores[users, SPLIT.validation] = 1
    scores[users, SPLIT.test] = 2

    found = evaluate(scores.__getitem__, SPLIT, which="validation")

    assert found.full_ndcg_at_10 == pytest.approx(1 / log2(3))
    assert found.ndcg_at_10 == 1


def one_user(rank: int) -> tuple[Split, NDArray[np.float64]]:
    """A user whose test item, item 2, has `rank` candidates above it."""
    items = 120
    nothing = np.zeros((1, 0), dtype=np.int64)
    split = Split(
        name="one",
        user_count=1,
        item_count=items,
        context=(),
        train=Histories(
            starts=np.array([0, 1]), items=np.array([0]), times=np.array([0]), context=nothing
        ),
        validation=np.array([1]),
        validation_times=np.array([1]),
        validation_context=nothing,
        test=np.array([2]),
        test_times=np.array([2]),
        test_context=nothing,
        candidates=np.arange(3, 102)[None, :],
    )
    scores = np.zeros((1, items))
    scores[0, 2] = 1
    scores[0, 3 : 3 + rank] = 2
    return split, scores


@pytest.mark.parametrize(
    ("rank", "hit", "gain"),
    [(0, 1.0, 1.0), (1, 1.0, 0.6309298), (9, 1.0, 0.2890648), (10, 0.0, 0.0), (99, 0.0, 0.0)],
)
def test_golden_ranks(rank: int, hit: float, gain: float) -> None:
    split, scores = one_user(rank)
    found = evaluate(scores.__getitem__, split, which="test")
    assert (found.hr_at_10, found.full_hr_at_10) == (hit, hit)
    assert (found.ndcg_at_10, found.full_ndcg_at_10) == pytest.approx((gain, gain), abs=1e-7)


def test_batches_of_users_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = random_scores(SPLIT, 0)
    at_once = evaluate(scores.__getitem__, SPLIT, which="test")
    sizes = []

    def scorer(users: NDArray[np.int64]) -> NDArray[np.float32]:
        sizes.append(len(users))
        return scores[users]

    monkeypatch.setattr(protocol, "_SCORES_AT_ONCE", 7 * SPLIT.item_count)
    close(evaluate(scorer, SPLIT, which="test"), at_once)
    assert sizes == [7, 7, 7, 7, 7, 5]


def test_scores_stay_as_they_were() -> None:
    scores = random_scores(SPLIT, 1)
    before = scores.copy()
    evaluate(lambda users: scores[users[0] : users[-1] + 1], SPLIT, which="test")
    np.testing.assert_array_equal(scores, before)


def test_scores_of_another_shape_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"scores of shape \(40, 3\) for 40 users and \d+ items"):
        evaluate(lambda users: np.zeros((len(users), 3)), SPLIT, which="test")


def test_popularity_knows_the_training_part_only() -> None:
    moved = replace(SPLIT, validation=np.roll(SPLIT.validation, 1), test=np.roll(SPLIT.test, 1))
    users = np.arange(3)
    scores = popularity(SPLIT)(users)

    assert scores.shape == (3, SPLIT.item_count)
    assert scores[0].sum() == len(SPLIT.train.items)
    np.testing.assert_array_equal(scores, popularity(moved)(users))


def next_action(split: Split) -> Split:
    """The same interactions as a task in which items may be used again."""
    return replace(split, repeats=True, candidates=split.candidates[:, :0])


@which_one
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=15)
def test_the_next_action_is_ranked_among_all_with_nothing_masked(
    which: Literal["validation", "test"], seed: int
) -> None:
    scores = random_scores(SPLIT, seed)
    hits = gains = 0.0
    for user, item in enumerate(held_out(SPLIT, which).tolist()):
        rank = int((scores[user] >= scores[user, item]).sum()) - 1
        hits += rank < 10
        gains += 1 / log2(rank + 2) if rank < 10 else 0
    hits, gains = hits / SPLIT.user_count, gains / SPLIT.user_count

    close(
        evaluate(scores.__getitem__, next_action(SPLIT), which=which),
        Quality(hr_at_10=hits, ndcg_at_10=gains, full_hr_at_10=hits, full_ndcg_at_10=gains),
    )


@which_one
def test_own_frequency_counts_what_came_before_and_popularity_breaks_ties(
    which: Literal["validation", "test"],
) -> None:
    split = next_action(SPLIT)
    users = np.arange(3, 7)
    scores = own_frequency(split, which=which)(users)

    for row, user in enumerate(users.tolist()):
        before = split.train.items_of(user)
        if which == "test":
            before = np.append(before, split.validation[user])
        counts = np.bincount(before, minlength=split.item_count)
        np.testing.assert_array_equal(np.floor(scores[row]), counts)
        popular = np.bincount(split.train.items, minlength=split.item_count)
        share = popular / (popular.sum() + 1)
        np.testing.assert_allclose(scores[row] - counts, share, atol=1e-12)


@given(seed=st.integers(0, 1_000), item=st.integers(0, SPLIT.item_count - 1))
@settings(max_examples=20)
def test_exposure_is_what_its_docstring_says(seed: int, item: int) -> None:
    scores = random_scores(SPLIT, seed)
    shown = []
    for user in range(SPLIT.user_count):
        known = {*SPLIT.train.items_of(user), SPLIT.validation[user], SPLIT.test[user]}
        if item not in known:
            rivals = set(range(SPLIT.item_count)) - known - {item}
            shown.append(sum(scores[user, rival] >= scores[user, item] for rival in rivals) < 10)
    assert exposure(scores.__getitem__, SPLIT, item) == pytest.approx(np.mean(shown))


def test_the_best_round_is_picked_by_gain_then_hits_then_age() -> None:
    def round_of(gain: float, hits: float) -> Quality:
        return replace(WORST, ndcg_at_10=gain, hr_at_10=hits)

    assert best_round([round_of(0.1, 0.9), round_of(0.3, 0.5), round_of(0.2, 0.9)]) == 1
    assert best_round([round_of(0.3, 0.4), round_of(0.3, 0.5)]) == 1
    assert best_round([round_of(0.3, 0.5), round_of(0.3, 0.5)]) == 0
    with pytest.raises(ValueError, match="no round"):
        best_round([])


@pytest.mark.skipif(not MOVIELENS.exists(), reason=f"MovieLens-100K is not at {MOVIELENS}")
def test_popularity_on_movielens_100k_is_the_published_row() -> None:
    data = load_movielens(MOVIELENS)
    assert (len(data), data.user_count, data.item_count) == (100_000, 943, 1_682)

    split = split_latest(data)
    found = evaluate(popularity(split), split, which="test")

    # The full rank has no chance in it; the sampled one depends on the candidates' seed.
    assert found.full_hr_at_10 == pytest.approx(0.082, abs=0.0005)
    assert found.full_ndcg_at_10 == pytest.approx(0.039, abs=0.0005)
    assert found.hr_at_10 == pytest.approx(0.414, abs=0.01)
    assert found.ndcg_at_10 == pytest.approx(0.225, abs=0.01)
