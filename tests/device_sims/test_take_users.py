"""A part of a data set's users."""

from dataclasses import replace

import numpy as np
import pytest

from device_sims.datasets import DatasetError, synthesise, take_users


def test_the_chosen_users_keep_their_interactions_and_the_catalogue() -> None:
    whole = synthesise(users=30, items=60, mean_interactions=10.0, seed=1)
    part = take_users(whole, 7, seed=3)
    assert part.user_count == 7
    assert part.item_labels == whole.item_labels
    for user, label in enumerate(part.user_labels):
        before = whole.items[whole.users == whole.user_labels.index(label)]
        np.testing.assert_array_equal(part.items[part.users == user], before)


def test_all_users_are_the_whole() -> None:
    whole = synthesise(users=30, items=60, mean_interactions=10.0, seed=1)
    part = take_users(whole, 30, seed=3)
    np.testing.assert_array_equal(part.users, whole.users)
    assert part.user_labels == whole.user_labels


def test_context_and_features_go_along() -> None:
    whole = synthesise(users=30, items=60, mean_interactions=10.0, seed=1)
    rows = np.arange(len(whole))[:, None]
    whole = replace(whole, context_ids=rows, repeats=True, notes=("said",))
    part = take_users(whole, 7, seed=3)
    np.testing.assert_array_equal(whole.items[part.context_ids[:, 0]], part.items)
    np.testing.assert_array_equal(whole.times[part.context_ids[:, 0]], part.times)
    assert part.features is whole.features
    assert (part.repeats, part.notes) == (True, ("said",))


@pytest.mark.parametrize("count", [0, -1, 31])
def test_other_counts_are_refused(count: int) -> None:
    whole = synthesise(users=30, items=60, mean_interactions=10.0, seed=1)
    with pytest.raises(DatasetError, match="expected 1 to 30"):
        take_users(whole, count, seed=0)
