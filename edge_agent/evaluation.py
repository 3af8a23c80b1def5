"""What the device reports about itself, as numbers only: how its held-out interaction ranks."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_agent.errors import ProgramError
from edge_agent.local_update import gather
from edge_agent.runtimes.protocol import Program
from edge_agent.sampling import IntArray, absent_items
from wire.delta import FloatArray
from wire.manifest import BatchKind, Manifest

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
        loss: pointwise: binary cross-entropy, half for the held-out item as a positive and half
            for the candidates' mean as negatives; pairwise: mean of -log sigmoid(its score minus
            a candidate's).
    """

    hr_at_10: float
    ndcg_at_10: float
    loss: float


def evaluate(
    manifest: Manifest,
    base: Mapping[str, FloatArray],
    private: Mapping[str, FloatArray],
    history: IntArray,
    held_out: int,
    *,
    seed: int,
    scorer: Program,
) -> Evaluation | None:
    """Rank the held-out item against 99 items that the device never interacted with.

    The candidates depend on the seed, the history and the catalogue only, so that the numbers of
    one device can be compared over time. Ties count against the held-out item.

    Args:
        manifest: of the task.
        base: full federated parameters.
        private: the device's private parameters.
        history: int64 [n] every item of the history, the held-out one included.
        held_out: the item to rank.
        seed: of the candidates.
        scorer: the manifest's scorer.

    Returns:
        None when the device has interacted with every item, so that nothing is left to compare.
    """
    present = np.unique(np.append(history, held_out))
    absent = manifest.items - len(present)
    if not absent:
        return None
    picks = np.random.default_rng(seed).choice(absent, min(CANDIDATES, absent), replace=False)
    items = np.append(absent_items(present, picks), held_out)
    scores = score(manifest, base, private, items, scorer).astype(np.float64)
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
    base: Mapping[str, FloatArray],
    private: Mapping[str, FloatArray],
    history: IntArray,
    top: int,
    *,
    scorer: Program,
) -> list[tuple[int, float]]:
    """The best-scored items that are not in the history, best first, as (item, score).

    The table is scored in portions, so that memory does not depend on the catalogue's width.
    """
    scores = np.empty(manifest.items, np.float32)
    for first in range(0, manifest.items, ROWS_AT_ONCE):
        items = np.arange(first, min(first + ROWS_AT_ONCE, manifest.items))
        scores[items] = score(manifest, base, private, items, scorer)
    scores[history] = -np.inf
    count = max(0, min(top, manifest.items - len(np.unique(history))))
    best = np.argpartition(-scores, count - 1)[:count] if count else np.zeros(0, np.int64)
    order = np.lexsort((best, -scores[best]))
    return [(int(item), float(scores[item])) for item in best[order]]


def score(
    manifest: Manifest,
    base: Mapping[str, FloatArray],
    private: Mapping[str, FloatArray],
    items: IntArray,
    scorer: Program,
) -> NDArray[np.float32]:
    """Raw scores of some items, float32 [len(items)].

    Raises:
        ProgramError: the scorer does not fit the manifest, failed, or gave no finite scores.
    """
    scores = scorer.run({**gather(manifest, base, items), **private}).get("score")
    if scores is None or scores.shape != items.shape or not np.isfinite(scores).all():
        raise ProgramError(f"the scorer gave no finite score for each of {len(items)} items")
    return scores.astype(np.float32, copy=False)


def _loss(kind: BatchKind, own: np.float64, others: NDArray[np.float64]) -> float:
    if kind is BatchKind.PAIRWISE:
        return float(np.logaddexp(0.0, others - own).mean())
    return float((np.logaddexp(0.0, -own) + np.logaddexp(0.0, others).mean()) / 2)
