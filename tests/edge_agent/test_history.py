"""What a task can use of a device's history."""

import logging

import numpy as np
import pytest

from edge_agent.history import History
from tests.edge_agent.history_task import make_context_task, make_sequence_task
from tests.edge_agent.tiny_task import ITEMS

CONTEXT_TASK, SEQUENCE_TASK = make_context_task().manifest, make_sequence_task().manifest


def test_recent_items_are_the_newest_oldest_first() -> None:
    history = History(np.array([4, 5, 6]), np.zeros((3, 0), np.int64))
    assert [history.recent(length).tolist() for length in (0, 1, 2, 3, 9)] == [
        [],
        [6],
        [5, 6],
        [4, 5, 6],
        [4, 5, 6],
    ]


def test_every_occurrence_of_the_latest_item_is_held_out_but_of_a_sequence_only_the_latest() -> (
    None
):
    history = History(np.array([9, 4, 9, 5, 9]), np.arange(10).reshape(5, 2))
    before = history.before_latest(CONTEXT_TASK)
    assert before.items.tolist() == [4, 5]
    assert before.context.tolist() == [[2, 3], [6, 7]]
    assert history.before_latest(SEQUENCE_TASK).items.tolist() == [9, 4, 9, 5]
    for manifest in (CONTEXT_TASK, SEQUENCE_TASK):
        nothing = history.where(np.zeros(5, np.bool_))
        assert len(nothing.before_latest(manifest)) == 0


def test_what_a_task_does_not_know_is_left_out_or_unknown_with_one_warning_each(
    caplog: pytest.LogCaptureFixture,
) -> None:
    items = np.array([3, ITEMS, -1, 5, 6])
    context = np.array([[7, 3], [1, 1], [1, 1], [8, 4], [-1, 2]])
    with caplog.at_level(logging.WARNING):
        known = History(items, context).known_to(CONTEXT_TASK)
    assert known.items.tolist() == [3, 5, 6]
    assert known.context.tolist() == [[7, 3], [0, 0], [0, 2]]
    assert [record.getMessage() for record in caplog.records] == [
        "2 interactions are outside the catalogue",
        "3 context ids are outside their field's size (weekday, daytime) and count as unknown",
    ]
    caplog.clear()
    np.testing.assert_equal(known.known_to(CONTEXT_TASK).context, known.context)
    assert not caplog.records
