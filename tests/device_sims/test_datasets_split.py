"""Leave-latest-out, the candidates, and that nothing held out can reach training."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_sims.datasets import (
    DatasetError,
    Events,
    Interactions,
    LabelColumn,
    Split,
    index_events,
    split_latest,
    synthesise,
)
from device_sims.datasets.split import CANDIDATES
from edge_agent.sampling import draw_negatives

ROWS = st.lists(
    st.tuples(st.integers(0, 5), st.integers(0, 20), st.integers(0, 3)), max_size=80
).map(lambda rows: [*rows, (6, 0, 0), (6, 1, 0), (6, 2, 0)])


def interactions(rows: list[tuple[int, int, int]], *, repeats: bool = False) -> Interactions:
    """Interactions whose context is the number of their row."""
    users, items, times = (np.array(column) for column in zip(*rows, strict=True))
    labels = [str(number) for number in range(200)]
    return index_events(
        "rows",
        Events(
            users=users,
            items=items,
            times=times,
            user_labels=labels,
            item_labels=labels,
            columns={"row": LabelColumn(codes=np.arange(len(rows)), labels=labels)},
        ),
        context=["row"],
        repeats=repeats,
    )


def used_by(split: Split, user: int) -> list[int]:
    """Every item of a user, the held-out ones last."""
    return [
        *map(int, split.train.items_of(user)),
        int(split.validation[user]),
        int(split.test[user]),
    ]


@pytest.fixture(scope="module")
def split() -> Split:
    return split_latest(synthesise())


@given(ROWS)
def test_the_parts_are_disjoint_and_together_everything(rows: list[tuple[int, int, int]]) -> None:
    source = interactions(rows)
    split = split_latest(source)

    for user in range(source.user_count):
        mine = source.users == user
        assert sorted(used_by(split, user)) == sorted(source.items[mine].tolist())
        assert len(split.train.items_of(user)) == mine.sum() - 2 >= 1


@given(ROWS)
def test_training_lies_before_validation_and_validation_before_test(
    rows: list[tuple[int, int, int]],
) -> None:
    source = interactions(rows)
    split = split_latest(source)

    for user in range(source.user_count):
        own = source.users == user
        times = dict(zip(source.items[own].tolist(), source.times[own].tolist(), strict=True))
        in_order = [times[item] for item in used_by(split, user)]
        assert in_order == sorted(in_order)
        assert split.train.times_of(user).tolist() == in_order[:-2]
        assert [split.validation_times[user], split.test_times[user]] == in_order[-2:]


@given(ROWS, st.booleans())
def test_context_goes_with_its_interaction(rows: list[tuple[int, int, int]], repeats: bool) -> None:
    split = split_latest(interactions(rows, repeats=repeats))
    (field,) = split.context
    items = interactions(rows, repeats=repeats).item_labels

    def check(item: int, context: list[int], user: int, at: int) -> None:
        row = rows[int(field.labels[context[0] - 1])]
        assert (int(items[item]), at) == (row[1], row[2])
        assert user_of.setdefault(user, row[0]) == row[0]

    user_of: dict[int, int] = {}
    for user in range(split.user_count):
        for at in range(len(split.train.items_of(user))):
            check(
                split.train.items_of(user)[at],
                split.train.context_of(user)[at].tolist(),
                user,
                split.train.times_of(user)[at],
            )
        for held, ids, times in (
            (split.validation, split.validation_context, split.validation_times),
            (split.test, split.test_context, split.test_times),
        ):
            check(held[user], ids[user].tolist(), user, times[user])


def test_repeats_are_split_like_any_interaction_and_have_no_candidates() -> None:
    rows = [(0, 5, 1), (0, 5, 2), (0, 6, 3), (0, 5, 4), (0, 5, 5)]
    split = split_latest(interactions(rows, repeats=True))

    assert split.repeats
    assert split.train.items.tolist() == [0, 0, 1]
    assert (split.validation.tolist(), split.test.tolist()) == ([0], [0])
    assert split.candidates.shape == (1, 0)


def test_of_equal_times_the_first_in_the_file_is_the_latest() -> None:
    split = split_latest(interactions([(0, 5, 9), (0, 3, 9), (0, 4, 9), (0, 1, 1), (0, 2, 1)]))

    # Items are renumbered by label: 1..5 become 0..4.
    assert split.test.tolist() == [4]
    assert split.validation.tolist() == [2]
    assert split.train.items.tolist() == [0, 1, 3]

    split = split_latest(interactions([(0, 5, 9), (0, 3, 8), (0, 4, 8), (0, 1, 1)]))
    assert (split.test.tolist(), split.validation.tolist()) == ([3], [1])


@given(ROWS)
def test_a_small_catalogue_gives_every_unseen_item_as_a_candidate(
    rows: list[tuple[int, int, int]],
) -> None:
    split = split_latest(interactions(rows))

    for user in range(split.user_count):
        unseen = sorted(set(range(split.item_count)) - set(used_by(split, user)))
        expected = unseen + [-1] * (CANDIDATES - len(unseen))
        assert split.candidates[user].tolist() == expected


def test_candidates_are_99_distinct_items_that_the_user_never_used(split: Split) -> None:
    assert split.candidates.shape == (split.user_count, CANDIDATES)
    assert (np.diff(split.candidates, axis=1) > 0).all()
    assert 0 <= split.candidates.min() <= split.candidates.max() < split.item_count
    for user in range(split.user_count):
        assert not np.isin(used_by(split, user), split.candidates[user]).any()


def test_candidates_are_the_same_for_everyone_who_asks_and_follow_the_seed(split: Split) -> None:
    again = split_latest(synthesise())
    other = split_latest(synthesise(), candidate_seed=1)

    np.testing.assert_array_equal(again.candidates, split.candidates)
    assert (other.candidates != split.candidates).any()
    np.testing.assert_array_equal(other.test, split.test)


def test_candidates_are_uniform_over_the_unseen_items() -> None:
    users, unseen = 2_000, 297
    rows = [(user, item, 0) for user in range(users) for item in range(3)]
    rows += [(users, item, 0) for item in range(300)]
    columns = np.array(rows)
    split = split_latest(
        index_events(
            "uniform",
            Events(
                users=columns[:, 0],
                items=columns[:, 1],
                times=columns[:, 2],
                user_labels=[str(user) for user in range(users + 1)],
                item_labels=[str(item) for item in range(300)],
            ),
        )
    )

    drawn = np.bincount(split.candidates[:users].ravel(), minlength=300)
    expected = users * CANDIDATES / unseen
    deviation = np.sqrt(expected * (1 - CANDIDATES / unseen))
    assert drawn[:3].sum() == 0
    assert np.abs(drawn[3:] - expected).max() < 5 * deviation


def test_negatives_of_the_agent_include_held_out_items_and_never_training_ones(
    split: Split,
) -> None:
    """The leak that many published evaluations have: the test item is never pushed down."""
    rng = np.random.default_rng(0)
    for user in range(20):
        training = np.sort(split.train.items_of(user))
        negatives = draw_negatives(training, split.item_count, 20_000, rng)

        assert split.test[user] in negatives
        assert split.validation[user] in negatives
        assert not np.isin(negatives, training).any()


def test_arrays_cannot_be_written(split: Split) -> None:
    for array in (split.train.items, split.validation, split.test, split.candidates):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_a_user_with_too_little_is_an_error() -> None:
    full = interactions([(0, 0, 0), (0, 1, 0), (0, 2, 0)])
    short = replace(
        full,
        name="short",
        users=full.users[:2],
        items=full.items[:2],
        times=full.times[:2],
        context_ids=full.context_ids[:2],
    )
    with pytest.raises(DatasetError, match="short: a user has fewer than 3 interactions"):
        split_latest(short)
