"""Laws of cleaning and indexing: what comes out is ordered, dense, and nothing but what went in."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_sims.datasets import (
    Cleaning,
    DatasetError,
    Events,
    Interactions,
    LabelColumn,
    index_events,
)

Row = tuple[str, str, int]
_LABELS = st.sampled_from(["1", "2", "9", "10", "a", "b"])
ROWS = st.lists(st.tuples(_LABELS, _LABELS, st.integers(0, 4)), max_size=60)
# One user who always stays, so that the laws are about data sets that exist.
KEPT: list[Row] = [("z", "1", 0), ("z", "2", 0), ("z", "9", 1)]


def events(rows: list[Row], skipped_lines: int = 0) -> Events:
    users, items, times = zip(*rows, strict=True)
    user_labels, item_labels = list(dict.fromkeys(users)), list(dict.fromkeys(items))
    return Events(
        users=np.array([user_labels.index(label) for label in users]),
        items=np.array([item_labels.index(label) for label in items]),
        times=np.array(times),
        user_labels=user_labels,
        item_labels=item_labels,
        skipped_lines=skipped_lines,
    )


def labelled(found: Interactions) -> list[Row]:
    return [
        (found.user_labels[user], found.item_labels[item], int(time))
        for user, item, time in zip(found.users, found.items, found.times, strict=True)
    ]


def earliest_of_each_pair(rows: list[Row]) -> dict[tuple[str, str], int]:
    """The rule in its plainest form: in order of time, then file, the first of a pair stays."""
    kept: dict[tuple[str, str], int] = {}
    for user, item, time in sorted(rows, key=lambda row: row[2]):
        kept.setdefault((user, item), time)
    return kept


@given(ROWS)
def test_exactly_the_earliest_pairs_of_users_with_three_items_stay(rows: list[Row]) -> None:
    rows = rows + KEPT
    pairs = earliest_of_each_pair(rows)
    items_of = {user: sum(who == user for who, _ in pairs) for user, _, _ in rows}

    found = index_events("law", events(rows))

    assert sorted(labelled(found)) == sorted(
        (user, item, time) for (user, item), time in pairs.items() if items_of[user] >= 3
    )
    assert found.cleaning == Cleaning(
        duplicates=len(rows) - len(pairs),
        dropped_users=sum(count < 3 for count in items_of.values()),
    )


@given(ROWS)
def test_users_and_items_are_dense_and_rows_are_ordered(rows: list[Row]) -> None:
    found = index_events("law", events(rows + KEPT))

    assert set(found.users.tolist()) == set(range(found.user_count))
    assert set(found.items.tolist()) == set(range(found.item_count))
    order = list(zip(found.users.tolist(), found.times.tolist(), strict=True))
    assert order == sorted(order)
    assert found.users.dtype == found.items.dtype == found.times.dtype == np.int64


@given(ROWS, st.randoms(use_true_random=False))
def test_numbers_do_not_depend_on_the_order_of_the_file(rows: list[Row], random: object) -> None:
    rows = rows + KEPT
    shuffled = list(rows)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    found, again = index_events("law", events(rows)), index_events("law", events(shuffled))

    assert again.user_labels == found.user_labels
    assert again.item_labels == found.item_labels
    assert sorted(labelled(again)) == sorted(labelled(found))


@given(ROWS)
def test_with_repeats_everything_of_users_with_three_interactions_stays(rows: list[Row]) -> None:
    rows = rows + KEPT
    counts = {user: sum(who == user for who, _, _ in rows) for user, _, _ in rows}

    found = index_events("law", events(rows), repeats=True)

    assert found.repeats
    assert sorted(labelled(found)) == sorted(row for row in rows if counts[row[0]] >= 3)
    assert found.cleaning == Cleaning(dropped_users=sum(count < 3 for count in counts.values()))


def with_columns(rows: list[Row], columns: dict[str, list[str]]) -> Events:
    numbered = {}
    for name, labels in columns.items():
        distinct = list(dict.fromkeys(labels))
        codes = np.array([distinct.index(label) for label in labels])
        numbered[name] = LabelColumn(codes=codes, labels=distinct)
    return replace(events(rows), columns=numbered)


@given(st.lists(st.tuples(_LABELS, _LABELS, st.sampled_from(["b", "", " ", "a"])), max_size=40))
def test_context_ids_name_their_labels_and_zero_says_unknown(
    rows: list[tuple[str, str, str]],
) -> None:
    """The times are distinct, so that an interaction can be found again by its time."""
    timed = [(user, item, at) for at, (user, item, _) in enumerate(rows)]
    situations = [situation for _, _, situation in rows] + ["", "c", "c"]
    timed += [("z", item, len(timed) + at) for at, item in enumerate(("1", "2", "9"))]

    found = index_events(
        "law", with_columns(timed, {"mood": situations}), context=["mood"], repeats=True
    )

    (field,) = found.context
    assert field.name == "mood"
    assert list(field.labels) == sorted(set(field.labels))
    assert found.context_ids.shape == (len(found), 1)
    assert found.context_ids.max() == field.size - 1
    for at, (number,) in zip(found.times.tolist(), found.context_ids.tolist(), strict=True):
        assert (["", *field.labels][number]) == situations[at].strip()


def test_context_of_a_repeated_item_is_that_of_the_earliest() -> None:
    rows: list[Row] = [("u", "1", 2), ("u", "1", 1), ("u", "2", 3), ("u", "3", 4)]
    found = index_events(
        "first", with_columns(rows, {"day": ["late", "early", "x", "x"]}), context=["day"]
    )
    assert found.context[0].labels == ("early", "x")
    assert found.context_ids[:, 0].tolist() == [1, 2, 2]


def test_features_are_every_label_beside_the_item() -> None:
    rows: list[Row] = [("u", "1", 0), ("u", "2", 0), ("u", "3", 0), ("v", "1", 0), ("v", "4", 0)]
    columns = {
        "genre": ["war", "", "war", "love", "gone"],
        "cost": ["free", "paid", "free", "free", "free"],
    }
    found = index_events("genres", with_columns(rows, columns), features=["genre", "cost"])

    # The user v has too little, and with v go item 4 and its genre, not what v's line says of 1.
    assert found.item_labels == ("1", "2", "3")
    assert found.feature_names == ("genre=love", "genre=war", "cost=free", "cost=paid")
    assert found.features.dtype == np.float32
    assert found.features.tolist() == [[1, 1, 1, 0], [0, 0, 0, 1], [0, 1, 1, 0]]


def test_without_columns_there_is_no_context_and_no_feature() -> None:
    found = index_events("plain", events(KEPT))
    assert (found.context, found.feature_names) == ((), ())
    assert found.context_ids.shape == (3, 0)
    assert found.features.shape == (3, 0)


def test_equal_times_stay_in_file_order() -> None:
    rows = [("u", "3", 5), ("u", "1", 5), ("u", "2", 5), ("u", "4", 1)]

    assert [item for _, item, _ in labelled(index_events("ties", events(rows)))] == list("4312")


def test_decimal_labels_are_ordered_as_numbers_and_others_as_text() -> None:
    rows: list[Row] = [("u", item, 0) for item in ("10", "9", "1")]
    assert index_events("numbers", events(rows)).item_labels == ("1", "9", "10")

    rows = [*rows, ("u", "x", 0)]
    assert index_events("text", events(rows)).item_labels == ("1", "10", "9", "x")


def test_arrays_cannot_be_written() -> None:
    with pytest.raises(ValueError, match="read-only"):
        index_events("fixed", events(KEPT)).items[0] = 1


def test_skipped_lines_are_passed_on() -> None:
    assert index_events("skipped", events(KEPT, skipped_lines=7)).cleaning.skipped_lines == 7


def test_no_user_with_three_items_is_an_error_that_says_what_was_read() -> None:
    with pytest.raises(DatasetError, match=r"tiny: no user has 3 .*\(2 interactions of 1 users"):
        index_events("tiny", events(KEPT[:2]))
