"""What the device reports about itself, as numbers only: how its held-out interaction ranks."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_agent.errors import ProgramError
from edge_agent.history import History, IntArray
from edge_agent.local_update import gather
from edge_agent.runtimes.protocol import Array, Program
from edge_agent.sampling import absent_items, distinct_items
from wire.delta import FloatArray
from wire.manifest import BatchKind, Manifest
from wire.parameters import Table

__all__ = ["Evaluation", "evaluate", "recommend", "score"]

CANDIDATES = 99
TOP = 10
ROWS_AT_ONCE = 8_192


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Rank of one held-out interaction among sampled candidates.

    Attributes:
        hr_at_10: 1 when it is among the first ten, else 0.
        ndcg_at_10: 1 / log2(rank + 1) for a rank of 1 to 10, else 0.
        loss: pairwise: mean of -log sigmoid(its score minus a candidate's); otherwise binary
            cross-entropy, half for the held-out item as a positive and half for the candidates'
            mean as negatives.
    """

    hr_at_10: float
    ndcg_at_10: float
    loss: float


def evaluate(
    manifest: Manifest,
    base: Mapping[str, Table],
    private: Mapping[str, FloatArray],
    history: History,
    *,
    seed: int,
    scorer: Program,
) -> Evaluation | None:
    """Rank the item of the latest interaction against 99 that the device never interacted with.

    It is scored in its own context and after what came before it, see ``History.before_latest``.
    The candidates depend on the seed, the history and the catalogue only, so that the numbers of
    one device can be compared over time. Ties count against the held-out item.

    Args:
        manifest: of the task.
        base: full federated and frozen parameters.
        private: the device's private parameters.
        history: every interaction, at least one; the latest is the one held out.
        seed: of the candidates.
        scorer: the manifest's scorer.

    Returns:
        None when the device has interacted with every item, so that nothing is left to compare.
    """
    present = distinct_items(history.items)
    absent = manifest.items - len(present)
    if not absent:
        return None
    picks = np.random.default_rng(seed).choice(absent, min(CANDIDATES, absent), replace=False)
    items = np.append(absent_items(present, picks), history.items[-1])
    before, context = history.before_latest(manifest), history.context[-1]
    scores = score(manifest, base, private, items, before, context, scorer).astype(np.float64)
    others, own = scores[:-1], scores[-1]
    ahead = int((others >= own).sum())
    hit = ahead < TOP
    return Evaluation(
        hr_at_10=float(hit),
        ndcg_at_10=float(1.0 / np.log2(ahead + 2)) if hit else 0.0,
        loss=_loss(manifest.batch, own, others),
    )


def recommend(
    manifest: Manifest,
    base: Mapping[str, Table],
    private: Mapping[str, FloatArray],
    history: History,
    context: IntArray,
    top: int,
    *,
    again: bool = False,
    scorer: Program,
) -> list[tuple[int, float]]:
    """The best-scored items, best first and of equal ones the lowest number, as (item, score).

    Args:
        manifest: of the task.
        base: full federated and frozen parameters.
        private: the device's private parameters.
        history: every interaction.
        context: int64 [C], the context to recommend in.
        top: how many items, at least 0.
        again: whether items of the history may be recommended.
        scorer: the manifest's scorer.
    """
    every = np.arange(manifest.items)
    scores = score(manifest, base, private, every, history, context, scorer)
    masked = history.items[:0] if again else history.items
    scores[masked] = -np.inf
    count = max(0, min(top, manifest.items - len(np.unique(masked))))
    if not count:
        return []
    # Every item that ties with the last one, for a partition keeps any of them.
    best = np.flatnonzero(scores >= np.partition(scores, -count)[-count])
    best = best[np.argsort(-scores[best], kind="stable")][:count]
    return [(int(item), float(scores[item])) for item in best]


def score(
    manifest: Manifest,
    base: Mapping[str, Table],
    private: Mapping[str, FloatArray],
    items: IntArray,
    before: History,
    context: IntArray,
    scorer: Program,
) -> NDArray[np.float32]:
    """Raw scores of some items, float32 [len(items)].

    They are scored in portions, so that memory does not depend on the width of the catalogue, and
    no portion exceeds the scorer's capacity.

    Args:
        manifest: of the task.
        base: full federated and frozen parameters.
        private: the device's private parameters.
        items: int64 [n] item ids.
        before: the interactions before the moment, of which the recommender's window takes the
            newest.
        context: int64 [C], the context of the moment.
        scorer: the manifest's scorer.

    Raises:
        ProgramError: the scorer does not fit the manifest, failed, or gave no finite scores.
    """
    window = before.recent(manifest.history)
    most = ROWS_AT_ONCE
    if scorer.capacity is not None:
        most = min(most, scorer.capacity.rows - len(window))
    if most < 1:
        raise ProgramError(f"the scorer's capacity is too small for a window of {len(window)}")
    scores = np.empty(len(items), np.float32)
    for first in range(0, len(items), most):
        portion = items[first : first + most]
        # The window's rows follow the candidates', and so do their scores, which nobody asked for.
        rows = np.append(portion, window)
        moment = _moment(manifest, len(portion), len(window), context)
        found = scorer.run({**gather(manifest, base, rows), **private, **moment}).get("score")
        if found is None or found.shape != rows.shape or not np.isfinite(found).all():
            raise ProgramError(f"the scorer gave no finite score for each of {len(rows)} rows")
        scores[first : first + most] = found[: len(portion)]
    return scores


def _moment(
    manifest: Manifest, candidates: int, before: int, context: IntArray
) -> dict[str, Array]:
    """What a scorer is told beside its rows; the window is padded on the left."""
    history, present = np.zeros(manifest.history, np.int64), np.zeros(manifest.history, np.float32)
    history[manifest.history - before :] = candidates + np.arange(before)
    present[manifest.history - before :] = 1.0
    return {"context": context, "history": history, "present": present}


def _loss(kind: BatchKind, own: np.float64, others: NDArray[np.float64]) -> float:
    if kind is BatchKind.PAIRWISE:
        return float(np.logaddexp(0.0, others - own).mean())
    return float((np.logaddexp(0.0, -own) + np.logaddexp(0.0, others).mean()) / 2)
