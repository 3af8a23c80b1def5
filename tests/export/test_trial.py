"""A loss is tried with numbers before it is compiled."""

import pytest
import torch
from torch import Tensor

from export.errors import RecommenderError
from export.recommender import Recommender, local_copy
from export.recommenders import RECOMMENDERS
from export.trial import try_loss, try_score
from wire.manifest import BatchKind, Role

ROWS = 50


class Pooled(Recommender):
    """The mean of a history, which an empty one has none of."""

    kind, batch, items, history = "pooled", BatchKind.PAIRWISE, 9, 3

    def __init__(self, least: float) -> None:
        super().__init__()
        self.rows = torch.nn.Parameter(torch.ones(9, 2))
        self.least = least

    def roles(self) -> dict[str, Role]:
        return {"rows": Role.ROWS}

    def loss(self, positive: Tensor, negative: Tensor, history: Tensor, present: Tensor) -> Tensor:
        total = (self.rows[history] * present.unsqueeze(-1)).sum(1)
        mean = total / present.sum(1, keepdim=True).clamp(min=self.least)
        return ((self.rows[negative] - self.rows[positive]) * mean).sum(1)

    def score(self, history: Tensor, present: Tensor) -> Tensor:
        return self.rows @ (self.rows[history] * present.unsqueeze(-1)).sum(0)


def test_a_window_may_be_empty() -> None:
    try_loss(local_copy(Pooled(1.0), ROWS), 13, ROWS)
    with pytest.raises(RecommenderError, match="not finite where a window is empty"):
        try_loss(local_copy(Pooled(0.0), ROWS), 13, ROWS)


def test_zeros_at_the_start_hide_nothing() -> None:
    # Both factors of a product start at zero, and so do their gradients.
    mf = RECOMMENDERS["mf"](items=9, dimension=2)
    torch.nn.init.zeros_(mf.get_parameter("user_vector"))
    calls = try_loss(local_copy(mf, ROWS), 13, ROWS)
    assert "aten.index" in {call.name for call in calls}


def test_a_score_of_the_wrong_shape_is_refused() -> None:
    class Total(Pooled):
        def score(self, history: Tensor, present: Tensor) -> Tensor:
            return super().score(history, present).sum()

    situation = {"history": torch.zeros(3, dtype=torch.int64), "present": torch.ones(3)}
    with pytest.raises(
        RecommenderError, match=r"score\(\) returned torch.float32 \[\] for 50 rows"
    ):
        try_score(local_copy(Total(1.0), ROWS), situation, ROWS)
