"""Who used what and when: the one form that every data set is brought into."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from device_sims.datasets.errors import DatasetError

__all__ = [
    "MINIMUM_INTERACTIONS",
    "Cleaning",
    "ContextField",
    "Events",
    "IntArray",
    "Interactions",
    "LabelColumn",
    "index_events",
    "take_users",
]

IntArray = NDArray[np.int64]

MINIMUM_INTERACTIONS = 3
"""A user needs one interaction each for training, validation and test."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelColumn:
    """One more column of a file, beside users and items.

    Attributes:
        codes: int64 [n], positions in `labels`.
        labels: Distinct labels, in any order; a blank one says that nothing is known.
    """

    codes: IntArray
    labels: Sequence[str]


@dataclass(frozen=True, kw_only=True, eq=False)
class Events:
    """Interactions as a file gives them, in file order, before any cleaning.

    Attributes:
        users: int64 [n], positions in `user_labels`.
        items: int64 [n], positions in `item_labels`.
        times: int64 [n], in any unit; only their order counts.
        user_labels: Distinct labels, in any order.
        item_labels: Distinct labels, in any order.
        columns: Further facts about the interactions or their items, by name.
        skipped_lines: Broken lines that were left out.
    """

    users: IntArray
    items: IntArray
    times: IntArray
    user_labels: Sequence[str]
    item_labels: Sequence[str]
    columns: Mapping[str, LabelColumn] = field(default_factory=dict)
    skipped_lines: int = 0


@dataclass(frozen=True, kw_only=True)
class ContextField:
    """A categorical fact about interactions. Id 0 says that nothing is known.

    Attributes:
        name: The fact's.
        labels: The label of id 1, of id 2, and so on.
    """

    name: str
    labels: tuple[str, ...]

    @property
    def size(self) -> int:
        """How many ids there are."""
        return len(self.labels) + 1


@dataclass(frozen=True, kw_only=True)
class Cleaning:
    """What was left out on the way from a file to `Interactions`, in counts.

    Attributes:
        skipped_lines: Broken lines (only when the loader was told to skip them).
        duplicates: Further interactions of a user with an item already used.
        dropped_users: Users with fewer than `MINIMUM_INTERACTIONS` items.
    """

    skipped_lines: int = 0
    duplicates: int = 0
    dropped_users: int = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class Interactions:
    """What users did, ordered by user, then time, then place in the file.

    Every user has at least `MINIMUM_INTERACTIONS` interactions; no two of them are with the same
    item, unless `repeats`. The arrays are read-only.

    Attributes:
        name: The data set's name, for reports.
        users: int64 [n], non-decreasing, every value of 0..user_count-1 occurs.
        items: int64 [n], each below item_count.
        times: int64 [n], non-decreasing within a user.
        user_labels: The label of each user in the source, by user.
        item_labels: The label of each item in the source, by item.
        context: What `context_ids` has in each column.
        context_ids: int64 [n, fields], each below the size of its field.
        features: float32 [items, F], 1 where the feature applies to the item and 0 elsewhere; F may
            be 0.
        feature_names: What `features` has in each column, such as "cost=free".
        repeats: Whether a user may use an item again. Then the task is to foresee the next action,
            and `device_sims.protocol` evaluates it so.
        notes: What a reader of results must know about how the data set was made.
        cleaning: What was left out.
    """

    name: str
    users: IntArray
    items: IntArray
    times: IntArray
    user_labels: tuple[str, ...]
    item_labels: tuple[str, ...]
    context: tuple[ContextField, ...]
    context_ids: IntArray
    features: NDArray[np.float32]
    feature_names: tuple[str, ...]
    repeats: bool = False
    notes: tuple[str, ...] = ()
    cleaning: Cleaning = Cleaning()

    def __post_init__(self) -> None:
        for array in (self.users, self.items, self.times, self.context_ids, self.features):
            array.setflags(write=False)

    def __len__(self) -> int:
        return len(self.users)

    @property
    def user_count(self) -> int:
        """How many users there are."""
        return len(self.user_labels)

    @property
    def item_count(self) -> int:
        """How many items the catalogue has."""
        return len(self.item_labels)


def index_events(
    name: str,
    events: Events,
    *,
    context: Sequence[str] = (),
    features: Sequence[str] = (),
    repeats: bool = False,
    notes: Sequence[str] = (),
) -> Interactions:
    """Clean and re-index `events`.

    Of the interactions of one user with one item the earliest stays (the first in the file
    when times are equal), unless `repeats`. Users with fewer than `MINIMUM_INTERACTIONS` left are
    dropped, and then items that nobody uses. Users, items and the labels of context and features
    are numbered in the order of their labels: as numbers when all labels are decimal, otherwise as
    text; file order plays no part.

    A feature applies to an item when its label stands beside the item anywhere.

    Args:
        name: The data set's name, for reports and errors.
        events: What a loader read.
        context: Which of its columns are context of an interaction.
        features: Which of its columns are features of an item.
        repeats: Keep every interaction.
        notes: See `Interactions`.

    Raises:
        DatasetError: No user has enough interactions.
    """
    kept = np.lexsort((events.times, events.users))
    if not repeats:
        pairs = events.users[kept] * len(events.item_labels) + events.items[kept]
        kept = kept[_first_of_each(pairs)]
    duplicates = len(events.users) - len(kept)
    per_user = np.bincount(events.users[kept], minlength=len(events.user_labels))
    kept = kept[per_user[events.users[kept]] >= MINIMUM_INTERACTIONS]
    if not len(kept):
        raise DatasetError(
            f"{name}: no user has {MINIMUM_INTERACTIONS} {'' if repeats else 'distinct '}items or "
            f"more ({len(events.users)} interactions of {len(events.user_labels)} users were read)"
        )
    users, user_labels = _dense(events.users[kept], events.user_labels)
    items, item_labels = _dense(events.items[kept], events.item_labels)
    fields, context_ids = _context(events, context, kept)
    feature_names, table = _features(events, features, item_labels)
    regrouped = np.argsort(users, kind="stable")
    return Interactions(
        name=name,
        users=users[regrouped],
        items=items[regrouped],
        times=events.times[kept][regrouped],
        user_labels=user_labels,
        item_labels=item_labels,
        context=fields,
        context_ids=context_ids[regrouped],
        features=table,
        feature_names=feature_names,
        repeats=repeats,
        notes=tuple(notes),
        cleaning=Cleaning(
            skipped_lines=events.skipped_lines,
            duplicates=duplicates,
            dropped_users=int(np.count_nonzero(per_user)) - len(user_labels),
        ),
    )


def take_users(interactions: Interactions, count: int, *, seed: int) -> Interactions:
    """Return `count` random users with all their interactions; the catalogue stays whole.

    Args:
        interactions: Any data set.
        count: How many users, at least 1.
        seed: Which ones; the order of users is kept.

    Raises:
        DatasetError: There are fewer users.
    """
    if not 1 <= count <= interactions.user_count:
        raise DatasetError(
            f"{interactions.name}: {count} devices were asked for; "
            f"expected 1 to {interactions.user_count}, the number of users"
        )
    chosen = np.random.default_rng(seed).permutation(interactions.user_count)[:count]
    position = np.full(interactions.user_count, -1)
    position[np.sort(chosen)] = np.arange(count)
    kept = position[interactions.users] >= 0
    return replace(
        interactions,
        users=position[interactions.users[kept]],
        items=interactions.items[kept],
        times=interactions.times[kept],
        context_ids=interactions.context_ids[kept],
        user_labels=tuple(interactions.user_labels[user] for user in np.sort(chosen)),
    )


def _first_of_each(keys: IntArray) -> IntArray:
    """Ascending positions of the first occurrence of every distinct key."""
    return np.sort(np.unique(keys, return_index=True)[1])


def _context(
    events: Events, names: Sequence[str], kept: IntArray
) -> tuple[tuple[ContextField, ...], IntArray]:
    """Number the labels of each column from 1; a blank one is 0. The ids are [kept, columns]."""
    fields = []
    ids = np.zeros((len(kept), len(names)), dtype=np.int64)
    for at, name in enumerate(names):
        known, numbers, labels = _known(events.columns[name], kept)
        ids[known, at] = numbers + 1
        fields.append(ContextField(name=name, labels=labels))
    return tuple(fields), ids


def _features(
    events: Events, names: Sequence[str], item_labels: Sequence[str]
) -> tuple[tuple[str, ...], NDArray[np.float32]]:
    """Say of each item which labels stand beside it: names [F] and a table [items, F]."""
    row = {label: at for at, label in enumerate(item_labels)}
    rows = np.array([row.get(label, -1) for label in events.item_labels])[events.items]
    lines = np.flatnonzero(rows >= 0)
    feature_names: list[str] = []
    tables = [np.zeros((len(item_labels), 0), dtype=np.float32)]
    for name in names:
        known, numbers, labels = _known(events.columns[name], lines)
        table = np.zeros((len(item_labels), len(labels)), dtype=np.float32)
        table[rows[lines[known]], numbers] = 1.0
        feature_names += [f"{name}={label}" for label in labels]
        tables.append(table)
    return tuple(feature_names), np.concatenate(tables, axis=1)


def _known(column: LabelColumn, lines: IntArray) -> tuple[IntArray, IntArray, tuple[str, ...]]:
    """Number the labels at some lines, blank ones left out: positions in `lines`, numbers, labels.

    The numbers count from 0 in label order.
    """
    blank = np.array([not label.strip() for label in column.labels], dtype=bool)
    codes = column.codes[lines]
    known = np.flatnonzero(~blank[codes])
    return known, *_dense(codes[known], column.labels)


def _dense(codes: IntArray, labels: Sequence[str]) -> tuple[IntArray, tuple[str, ...]]:
    """Renumber `codes` (positions in `labels`) to 0..n-1 in label order, unused labels left out."""
    used = np.flatnonzero(np.bincount(codes, minlength=len(labels))).tolist()
    if all(labels[code].isdecimal() for code in used):
        used.sort(key=lambda code: int(labels[code]))
    else:
        used.sort(key=lambda code: labels[code])
    position = np.empty(len(labels), dtype=np.int64)
    position[used] = np.arange(len(used))
    return position[codes], tuple(labels[code] for code in used)
