"""Who used what and when: the one form that every data set is brought into."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from device_sims.datasets.errors import DatasetError

__all__ = [
    "MINIMUM_INTERACTIONS",
    "Cleaning",
    "Events",
    "IntArray",
    "Interactions",
    "index_events",
    "take_users",
]

IntArray = NDArray[np.int64]

MINIMUM_INTERACTIONS = 3
"""A user needs one interaction each for training, validation and test."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Events:
    """Interactions as a file gives them, in file order, before any cleaning.

    Attributes:
        users: int64 [n], positions in `user_labels`.
        items: int64 [n], positions in `item_labels`.
        times: int64 [n], in any unit; only their order counts.
        user_labels: Distinct labels, in any order.
        item_labels: Distinct labels, in any order.
        skipped_lines: Broken lines that were left out.
    """

    users: IntArray
    items: IntArray
    times: IntArray
    user_labels: Sequence[str]
    item_labels: Sequence[str]
    skipped_lines: int = 0


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
    """Distinct (user, item) pairs, ordered by user, then time, then place in the file.

    Every user has at least `MINIMUM_INTERACTIONS` items. The arrays are read-only.

    Attributes:
        name: The data set's name, for reports.
        users: int64 [n], non-decreasing, every value of 0..user_count-1 occurs.
        items: int64 [n], each below item_count.
        times: int64 [n], non-decreasing within a user.
        user_labels: The label of each user in the source, by user.
        item_labels: The label of each item in the source, by item.
        cleaning: What was left out.
    """

    name: str
    users: IntArray
    items: IntArray
    times: IntArray
    user_labels: tuple[str, ...]
    item_labels: tuple[str, ...]
    cleaning: Cleaning = Cleaning()

    def __post_init__(self) -> None:
        for column in (self.users, self.items, self.times):
            column.setflags(write=False)

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


def index_events(name: str, events: Events) -> Interactions:
    """Clean and re-index `events`.

    Of the interactions of one user with one item the earliest stays (the first in the file
    when times are equal). Users with fewer than `MINIMUM_INTERACTIONS` items left are dropped,
    and then items that nobody uses. Users and items are numbered in the order of their labels:
    as numbers when all labels are decimal, otherwise as text; file order plays no part.

    Args:
        name: The data set's name, for reports and errors.
        events: What a loader read.

    Raises:
        DatasetError: No user has enough interactions.
    """
    order = np.lexsort((events.times, events.users))
    users, items, times = events.users[order], events.items[order], events.times[order]

    first = _first_of_each(users * len(events.item_labels) + items)
    users, items, times = users[first], items[first], times[first]

    per_user = np.bincount(users, minlength=len(events.user_labels))
    kept = per_user[users] >= MINIMUM_INTERACTIONS
    if not kept.any():
        raise DatasetError(
            f"{name}: no user has {MINIMUM_INTERACTIONS} distinct items or more "
            f"({len(order)} interactions of {len(events.user_labels)} users were read)"
        )
    users, user_labels = _dense(users[kept], events.user_labels)
    items, item_labels = _dense(items[kept], events.item_labels)
    regrouped = np.argsort(users, kind="stable")
    return Interactions(
        name=name,
        users=users[regrouped],
        items=items[regrouped],
        times=times[kept][regrouped],
        user_labels=user_labels,
        item_labels=item_labels,
        cleaning=Cleaning(
            skipped_lines=events.skipped_lines,
            duplicates=len(order) - len(first),
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
        user_labels=tuple(interactions.user_labels[user] for user in np.sort(chosen)),
    )


def _first_of_each(keys: IntArray) -> IntArray:
    """Ascending positions of the first occurrence of every distinct key."""
    return np.sort(np.unique(keys, return_index=True)[1])


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
