"""Matrix factorisation: one vector for the user, one for each item, their product is the score.

Koren, Bell, Volinsky: Matrix factorization techniques for recommender systems, IEEE Computer
42(8), 2009, equation 1, and with ``bias=True`` the item term of equation 4. The user's own bias and
the mean of equation 4 move all items of a user alike and so change no ranking: they are left out.
The ratings of the paper are interactions here: learnt by their probability (``bce``) or by
their order (``bpr``). Of the paper's penalty on both vectors, equation 2, the user's is kept: item
rows are the work of many devices, a user's vector that of one, and it is the one that overfits.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from export.losses import bce, ridge, softplus
from export.recommender import Recommender
from export.recommenders.arguments import (
    check_above_zero,
    check_at_least,
    check_choice,
    check_table,
)
from wire.manifest import BatchKind, Role

__all__ = ["MatrixFactorisation"]


class MatrixFactorisation(Recommender):
    """A private user vector and federated item rows.

    The parameters start at draws from a normal distribution:
        user_vector: float32 [d], private. Every device starts from the same one.
        item_rows: float32 [items, d], or with ``bias`` [items, d + 1], where the last column is
            the item's bias and starts at 0.

    Args:
        items: size of the catalogue, at least 1.
        dimension: d, length of the vectors, at least 1.
        loss: ``bce`` learns how likely an item is, from labelled items; ``bpr`` learns which of two
            is preferred, from pairs (Rendle, Freudenthaler, Gantner, Schmidt-Thieme: BPR, UAI 2009,
            BPR-OPT without its regulariser).
        bias: whether an item has a bias.
        l2: strength of the penalty, at least 0; each sample adds l2 / 2 * |user_vector|^2 to its
            loss, and the loss that a device reports includes it.
        item_spread: standard deviation of the item rows' start, above 0.
        user_spread: standard deviation of the user vector's start, above 0.
        seed: of the start, 0 to 2**63 - 1; equal arguments give equal parameters.
    """

    kind = "mf"

    def __init__(
        self,
        *,
        items: int,
        dimension: int = 32,
        loss: Literal["bce", "bpr"] = "bce",
        bias: bool = False,
        l2: float = 0.01,
        item_spread: float = 0.03,
        user_spread: float = 0.1,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_at_least(1, dimension=dimension)
        check_at_least(0, l2=l2, seed=seed)
        check_above_zero(item_spread=item_spread, user_spread=user_spread)
        check_choice(("bce", "bpr"), loss=loss)
        check_table(items, dimension + bias)
        self.items, self.l2 = items, l2
        self.batch = BatchKind.PAIRWISE if loss == "bpr" else BatchKind.POINTWISE
        random = torch.Generator().manual_seed(seed)
        rows = torch.randn(items, dimension, generator=random) * item_spread
        user = torch.randn(dimension, generator=random) * user_spread
        if bias:
            rows = torch.cat([rows, torch.zeros(items, 1)], dim=1)
        self.user_vector = nn.Parameter(user)
        self.item_rows = nn.Parameter(rows)

    def roles(self) -> dict[str, Role]:
        """The user's vector stays on the device; of the items only touched rows travel."""
        return {"user_vector": Role.PRIVATE, "item_rows": Role.ROWS}

    def loss(self, item: Tensor, against: Tensor) -> Tensor:
        """The loss of each sample.

        Args:
            item: positions int64 [B] of labelled items (bce), or of preferred ones (bpr).
            against: labels float32 [B] (bce), or positions int64 [B] of the other items (bpr).

        Returns:
            float32 [B]: binary cross-entropy, or -log sigmoid(score of preferred - score of other).
        """
        penalty = ridge(self.l2, self.user_vector)
        if self.batch is BatchKind.POINTWISE:
            return bce(self._affinity(self.item_rows[item]), against) + penalty
        # -log sigmoid(x) = softplus(-x); the score is linear, so one product serves both items.
        difference = self.item_rows[against] - self.item_rows[item]
        return softplus(self._affinity(difference)) + penalty

    def score(self) -> Tensor:
        """The affinity of each row at hand: float32 [R], a logit."""
        return self._affinity(self.item_rows)

    def _affinity(self, rows: Tensor) -> Tensor:
        user: Tensor = self.user_vector
        # A constant 1 for the bias column makes it one product in place of a slice and a sum.
        if rows.shape[1] > user.shape[0]:
            user = torch.cat([user, user.new_ones(1)])
        return (rows @ user.unsqueeze(1)).squeeze(1)
