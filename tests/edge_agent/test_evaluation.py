"""Ranking of the held-out interaction, and recommendations."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_agent.errors import ProgramError
from edge_agent.evaluation import evaluate, recommend, score
from edge_agent.history import History, IntArray
from edge_agent.runtimes import Array, Program, open_runtime
from tests.edge_agent.history_task import WINDOW, make_context_task, make_sequence_task
from tests.edge_agent.tiny_task import ITEMS, TinyTask
from wire.delta import FloatArray
from wire.manifest import BatchKind, Capacity, Manifest


def history_of(items: Sequence[int] | IntArray) -> History:
    return History(np.array(items, np.int64), np.zeros((len(items), 0), np.int64))


HISTORY = history_of([3, 14, 15, 9])
NOWHERE = np.zeros(0, np.int64)


class FirstColumn:
    """A scorer that takes an item's score from the first column of its row."""

    def __init__(self, capacity: Capacity | None = None) -> None:
        self.calls: list[int] = []
        self.capacity = capacity

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        self.calls.append(len(inputs["table"]))
        return {"score": inputs["table"][:, 0]}


def base_with(
    scores: Sequence[float] | NDArray[np.floating],
) -> dict[str, FloatArray]:
    table = np.zeros((len(scores), 4), np.float32)
    table[:, 0] = scores
    return {"table": table, "bias": np.zeros(1, np.float32)}


def manifest_of(task: TinyTask, items: int, batch: BatchKind = BatchKind.POINTWISE) -> Manifest:
    values = {name: getattr(task.manifest, name) for name in Manifest.__dataclass_fields__}
    return Manifest(**{**values, "items": items, "batch": batch})


def test_rank_and_its_metrics(task: TinyTask) -> None:
    """50 items: 5 seen, so 45 unseen; exactly three of those score higher than the held-out one."""
    scores = np.zeros(50)
    scores[[20, 21, 22]] = 3.0
    scores[9] = 1.0
    found = evaluate(
        manifest_of(task, 50), base_with(scores), {}, HISTORY, seed=1, scorer=FirstColumn()
    )
    assert found is not None
    assert found.hr_at_10 == 1.0
    assert found.ndcg_at_10 == pytest.approx(1 / np.log2(4 + 1))


def test_ties_count_against_the_held_out_item(task: TinyTask) -> None:
    found = evaluate(
        manifest_of(task, 50), base_with([0.0] * 50), {}, HISTORY, seed=1, scorer=FirstColumn()
    )
    assert found is not None
    assert (found.hr_at_10, found.ndcg_at_10) == (0.0, 0.0)


def test_candidates_are_99_unseen_items_the_same_every_time(task: TinyTask) -> None:
    """An unseen item may beat the held-out one, a seen one never does."""
    scorer, manifest = FirstColumn(), manifest_of(task, 5_000)
    scores = np.full(5_000, -1.0)
    scores[HISTORY.items] = 5.0
    scores[9] = 0.0
    found = [
        evaluate(manifest, base_with(scores), {}, HISTORY, seed=1, scorer=scorer) for _ in range(2)
    ]
    assert scorer.calls == [100, 100]
    assert found[0] == found[1]
    assert found[0] is not None
    assert found[0].ndcg_at_10 == 1.0


def test_losses(task: TinyTask) -> None:
    scores = np.full(50, -2.0)
    scores[9] = 1.5
    base = base_with(scores)
    found = {
        kind: evaluate(manifest_of(task, 50, kind), base, {}, HISTORY, seed=1, scorer=FirstColumn())
        for kind in BatchKind
    }
    losses = {kind: evaluation.loss for kind, evaluation in found.items() if evaluation}
    own, others = np.log1p(np.exp(-1.5)), np.log1p(np.exp(-2.0))
    assert losses[BatchKind.POINTWISE] == pytest.approx((own + others) / 2)
    assert losses[BatchKind.SEQUENCE] == losses[BatchKind.POINTWISE]
    assert losses[BatchKind.PAIRWISE] == pytest.approx(np.log1p(np.exp(-3.5)))


def test_nothing_to_compare_with(task: TinyTask) -> None:
    everything, scorer = history_of(np.arange(5)), FirstColumn()
    base = base_with([0.0] * 5)
    manifest = manifest_of(task, 5)
    assert evaluate(manifest, base, {}, everything, seed=1, scorer=scorer) is None
    assert recommend(manifest, base, {}, everything, NOWHERE, 3, scorer=scorer) == []


def test_recommendations_are_the_best_unseen_items(task: TinyTask) -> None:
    scores = np.arange(20_000) % 7_919 * 1.0
    scorer = FirstColumn()
    manifest, base = manifest_of(task, 20_000), base_with(scores)
    history = history_of([7_918, 5, 5])
    found = recommend(manifest, base, {}, history, NOWHERE, 4, scorer=scorer)
    assert found == [(15_837, 7918.0), (7_917, 7917.0), (15_836, 7917.0), (7_916, 7916.0)]
    assert max(scorer.calls) <= 8_192
    again = recommend(manifest, base, {}, history, NOWHERE, 2, again=True, scorer=scorer)
    assert again == [(7_918, 7918.0), (15_837, 7918.0)]
    manifest, base = manifest_of(task, 4), base_with([1, 2, 3, 4])
    some = recommend(manifest, base, {}, history_of([]), NOWHERE, 9, scorer=scorer)
    assert [item for item, _score in some] == [3, 2, 1, 0]


def test_scores_that_are_not_finite_are_refused(task: TinyTask) -> None:
    base = base_with([np.nan] * ITEMS)
    with pytest.raises(ProgramError, match="gave no finite score"):
        score(task.manifest, base, {}, np.arange(3), HISTORY, NOWHERE, FirstColumn())


class Recorder:
    """A real scorer, of which the inputs are kept."""

    def __init__(self, program: Program, capacity: Capacity | None = None) -> None:
        self._program, self.capacity = program, capacity
        self.inputs: list[Mapping[str, Array]] = []

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        self.inputs.append(inputs)
        return self._program.run(inputs)


def scorer_of(root: Path, task: TinyTask, capacity: Capacity | None = None) -> Recorder:
    program = open_runtime("onnx").open_scorer(task.manifest, task.write_program(root))
    return Recorder(program, capacity)


def context_twin(
    start: Mapping[str, FloatArray], before: Sequence[int], daytime: int
) -> NDArray[np.float32]:
    """Scores of every item, on the whole tables, in NumPy."""
    pooled = start["features"][list(before)].sum(axis=0)
    alike: NDArray[np.float32] = start["scale"] * (start["features"] @ pooled)
    scores: NDArray[np.float32] = start["table"] @ start["user"] + start["daytime"][daytime] + alike
    return scores


@pytest.mark.parametrize("before", [[], [7], [7, 8, 7, 3, 2, 59]])
@pytest.mark.parametrize("rows", [None, WINDOW + 1, 20])
def test_scores_depend_on_the_moment_and_not_on_the_portions(
    tmp_path: Path, before: list[int], rows: int | None
) -> None:
    task = make_context_task()
    scorer = scorer_of(tmp_path, task, None if rows is None else Capacity(rows, 1))
    history = History(np.array(before, np.int64), np.zeros((len(before), 2), np.int64))
    moment, items = np.array([5, 2]), np.arange(ITEMS)[::-1]
    found = score(task.manifest, task.parameters(), task.private(), items, history, moment, scorer)
    expected = context_twin(task.start, before[-WINDOW:], 2)
    np.testing.assert_allclose(found, expected[items], atol=1e-5)
    assert max(len(inputs["table"]) for inputs in scorer.inputs) <= (rows or ITEMS + WINDOW)


def test_a_scorer_that_holds_no_more_than_the_window_is_refused(tmp_path: Path) -> None:
    task = make_context_task()
    history = History(np.arange(9), np.zeros((9, 2), np.int64))
    scorer = scorer_of(tmp_path, task, Capacity(WINDOW, 1))
    with pytest.raises(ProgramError, match="capacity is too small for a window of 3"):
        recommend(
            task.manifest,
            task.parameters(),
            task.private(),
            history,
            np.zeros(2, np.int64),
            5,
            scorer=scorer,
        )


def test_the_held_out_interaction_is_ranked_in_its_context_and_after_what_came_before(
    tmp_path: Path,
) -> None:
    """Earlier interactions with its item would show the answer, so they are no part of that."""
    task, context = make_context_task(), np.array([[0, 1], [0, 3], [0, 1], [0, 2], [6, 3]])
    history = History(np.array([4, 5, 9, 7, 9]), context)
    scorer = scorer_of(tmp_path, task)
    evaluate(task.manifest, task.parameters(), task.private(), history, seed=1, scorer=scorer)
    (inputs,) = scorer.inputs
    assert inputs["context"].tolist() == [6, 3]
    assert inputs["present"].tolist() == [1.0, 1.0, 1.0]
    table = task.start["table"]
    np.testing.assert_array_equal(inputs["table"][inputs["history"]], table[[4, 5, 7]])
    np.testing.assert_array_equal(inputs["table"][len(inputs["table"]) - WINDOW - 1], table[9])


def test_the_next_action_may_be_one_that_was_done_before(tmp_path: Path) -> None:
    task, history = make_sequence_task(), history_of([4, 9, 7, 9])
    scorer = scorer_of(tmp_path, task)
    found = evaluate(
        task.manifest, task.parameters(), task.private(), history, seed=1, scorer=scorer
    )
    assert found is not None
    (inputs,) = scorer.inputs
    memory = task.start["memory"]
    np.testing.assert_array_equal(inputs["memory"][inputs["history"]], memory[[4, 9, 7]])
    after_seven = task.start["table"] @ (task.start["user"] + memory[7])
    everything = recommend(
        task.manifest,
        task.parameters(),
        task.private(),
        history_of([4, 9, 7]),
        NOWHERE,
        ITEMS,
        again=True,
        scorer=scorer,
    )
    assert len(everything) == ITEMS
    for item, value in everything:
        assert value == pytest.approx(after_seven[item], abs=1e-5)
