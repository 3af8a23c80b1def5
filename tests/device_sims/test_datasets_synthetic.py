"""The built-in data set: the same for a seed, long-tailed, and worth learning."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from device_sims.datasets import DatasetError, Split, split_latest, synthesise
from device_sims.protocol import evaluate, popularity


def item_to_item(split: Split, *, regularisation: float = 50.0) -> NDArray[np.float64]:
    """Scores [users, items] of EASE: Steck, "Embarrassingly Shallow Autoencoders", WWW 2019, eq. 8.

    It has a closed form, so that what can be learnt is known without a training loop.
    """
    used = np.zeros((split.user_count, split.item_count))
    users = np.repeat(np.arange(split.user_count), np.diff(split.train.starts))
    used[users, split.train.items] = 1.0
    inverse = np.linalg.inv(used.T @ used + regularisation * np.eye(split.item_count))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0.0)
    scores: NDArray[np.float64] = used @ weights
    return scores


def test_the_same_seed_gives_the_same_data_and_another_one_does_not() -> None:
    first, again, other = synthesise(seed=3), synthesise(seed=3), synthesise(seed=4)

    assert first.item_labels == again.item_labels
    for column in ("users", "items", "times"):
        np.testing.assert_array_equal(getattr(first, column), getattr(again, column))
    assert len(first) != len(other) or (first.items != other.items).any()


def test_the_defaults_have_the_promised_size() -> None:
    found = synthesise()

    assert found.user_count == 200
    assert 390 <= found.item_count <= 400
    assert 35 <= len(found) / found.user_count <= 45
    assert found.user_labels[:2] == ("user-000", "user-001")
    assert np.bincount(found.users).min() >= 5
    assert found.cleaning.dropped_users == found.cleaning.duplicates == 0


def test_popularity_has_a_long_tail() -> None:
    counts = np.sort(np.bincount(synthesise(users=1_000).items))[::-1]

    assert counts[:40].sum() > 0.25 * counts.sum()
    assert np.median(counts) < 0.8 * counts.mean()


def test_activity_is_skewed() -> None:
    activity = np.bincount(synthesise(users=1_000).users)

    assert np.median(activity) < 0.85 * activity.mean()
    assert activity.max() > 3 * activity.mean()


def test_taste_can_be_learnt_and_popularity_is_moderate() -> None:
    popular, learnt = [], []
    for seed in range(3):
        split = split_latest(synthesise(seed=seed))
        popular.append(evaluate(popularity(split), split, which="test").hr_at_10)
        learnt.append(evaluate(item_to_item(split).__getitem__, split, which="test").hr_at_10)

    assert 0.35 <= np.mean(popular) <= 0.48
    assert np.mean(learnt) >= 0.65


def test_the_genre_of_an_item_says_something_about_who_takes_it() -> None:
    found = synthesise()
    assert found.feature_names == tuple(f"genre=genre-{number}" for number in range(6))
    assert (found.features.sum(axis=1) == 1).all()

    genres = found.features[found.items].argmax(axis=1)
    taken = np.zeros((found.user_count, 6))
    np.add.at(taken, (found.users, genres), 1)
    overall = np.bincount(genres, minlength=6) / len(genres)
    own = taken / taken.sum(axis=1, keepdims=True)
    assert np.abs(own - overall).sum(axis=1).mean() > 0.5


def test_nothing_drifts() -> None:
    """The latest items are as popular as any: they are not drawn from another distribution."""
    split = split_latest(synthesise(users=1_000))
    counts = np.bincount(split.train.items, minlength=split.item_count)

    earlier = [counts[split.train.items_of(user)].mean() for user in range(split.user_count)]
    assert counts[split.test].mean() == pytest.approx(np.mean(earlier), rel=0.05)


def test_tastes_of_some_users_drift_at_one_moment_and_nothing_else_changes() -> None:
    plain, drifted = (
        synthesise(users=400, drift_share=share, drift_at=0.6) for share in (0.0, 0.5)
    )
    labels = [np.array(data.item_labels)[data.items] for data in (plain, drifted)]
    np.testing.assert_array_equal(plain.users, drifted.users)
    np.testing.assert_array_equal(plain.times, drifted.times)
    year_s, begin_s = 365 * 86_400, 1_735_689_600
    later = plain.times >= begin_s + 0.6 * year_s
    np.testing.assert_array_equal(labels[0][~later], labels[1][~later])
    changed = np.zeros(400, bool)
    np.logical_or.at(changed, plain.users[later], (labels[0] != labels[1])[later])
    assert 150 < changed.sum() < 250
    pairs = np.stack([drifted.users, drifted.items])
    assert len(np.unique(pairs, axis=1).T) == len(drifted)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: synthesise(drift_share=2), "drift_share is 2; expected a share from 0 to 1"),
        (lambda: synthesise(drift_at=-1), "drift_at is -1; expected a share from 0 to 1"),
        (lambda: synthesise(users=0), "users is 0; expected at least 1"),
        (lambda: synthesise(items=9), "items is 9; expected at least 10"),
        (lambda: synthesise(items=60), "mean_interactions is 40.0; expected 5 to 30"),
        (lambda: synthesise(mean_interactions=4), "mean_interactions is 4; expected 5 to 200"),
    ],
)
def test_an_argument_out_of_range_is_an_error(call: Callable[[], object], message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        call()
