"""Ranking of the held-out interaction, and recommendations."""

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_agent.errors import ProgramError
from edge_agent.evaluation import evaluate, recommend
from edge_agent.runtimes import Array
from tests.edge_agent.tiny_task import ITEMS, TinyTask
from wire.delta import FloatArray
from wire.manifest import BatchKind, Manifest

HISTORY = np.array([3, 14, 15, 9], np.int64)


class FirstColumn:
    """A scorer that takes an item's score from the first column of its row."""

    def __init__(self) -> None:
        self.calls: list[int] = []

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
        manifest_of(task, 50), base_with(scores), {}, HISTORY, 9, seed=1, scorer=FirstColumn()
    )
    assert found is not None
    assert found.hr_at_10 == 1.0
    assert found.ndcg_at_10 == pytest.approx(1 / np.log2(4 + 1))


def test_ties_count_against_the_held_out_item(task: TinyTask) -> None:
    found = evaluate(
        manifest_of(task, 50), base_with([0.0] * 50), {}, HISTORY, 9, seed=1, scorer=FirstColumn()
    )
    assert found is not None
    assert (found.hr_at_10, found.ndcg_at_10) == (0.0, 0.0)


def test_candidates_are_99_unseen_items_the_same_every_time(task: TinyTask) -> None:
    """An unseen item may beat the held-out one, a seen one never does."""
    scorer, manifest = FirstColumn(), manifest_of(task, 5_000)
    scores = np.full(5_000, -1.0)
    scores[HISTORY] = 5.0
    scores[9] = 0.0
    found = [
        evaluate(manifest, base_with(scores), {}, HISTORY, 9, seed=1, scorer=scorer)
        for _ in range(2)
    ]
    assert scorer.calls == [100, 100]
    assert found[0] == found[1]
    assert found[0] is not None
    assert found[0].ndcg_at_10 == 1.0


def test_losses(task: TinyTask) -> None:
    scores = np.full(50, -2.0)
    scores[9] = 1.5
    base = base_with(scores)
    pointwise, pairwise = (
        evaluate(manifest_of(task, 50, kind), base, {}, HISTORY, 9, seed=1, scorer=FirstColumn())
        for kind in (BatchKind.POINTWISE, BatchKind.PAIRWISE)
    )
    assert pointwise is not None
    assert pairwise is not None
    own, others = np.log1p(np.exp(-1.5)), np.log1p(np.exp(-2.0))
    assert pointwise.loss == pytest.approx((own + others) / 2)
    assert pairwise.loss == pytest.approx(np.log1p(np.exp(-3.5)))


def test_nothing_to_compare_with(task: TinyTask) -> None:
    everything = np.arange(5)
    base = base_with([0.0] * 5)
    manifest = manifest_of(task, 5)
    assert evaluate(manifest, base, {}, everything, 4, seed=1, scorer=FirstColumn()) is None
    assert recommend(manifest, base, {}, everything, 3, scorer=FirstColumn()) == []


def test_recommendations_are_the_best_unseen_items(task: TinyTask) -> None:
    scores = np.arange(20_000) % 7_919 * 1.0
    scorer = FirstColumn()
    history = np.array([7_918, 5, 5])
    found = recommend(manifest_of(task, 20_000), base_with(scores), {}, history, 4, scorer=scorer)
    assert found == [(15_837, 7918.0), (7_917, 7917.0), (15_836, 7917.0), (7_916, 7916.0)]
    assert max(scorer.calls) <= 8_192
    some = recommend(
        manifest_of(task, 4), base_with([1, 2, 3, 4]), {}, history[:0], 9, scorer=scorer
    )
    assert [item for item, _score in some] == [3, 2, 1, 0]


def test_scores_that_are_not_finite_are_refused(task: TinyTask) -> None:
    with pytest.raises(ProgramError, match="gave no finite score"):
        recommend(task.manifest, base_with([np.nan] * ITEMS), {}, HISTORY, 3, scorer=FirstColumn())
