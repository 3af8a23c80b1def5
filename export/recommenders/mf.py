"""Matrix factorisation: one vector for the user, one for each item, their product is the score.

Koren, Bell, Volinsky: Matrix factorization techniques for recommender systems, IEEE Computer
42(8), 2009, equation 1, and with ``bias=True`` the item term of equation 4. The user's own bias and
the mean of equation 4 move all items of a user alike and so change no ranking: they are left out.
The ratings of the paper are interactions here: learnt by their probability (``bce``) or by
their order (``bpr``). Of the paper's penalty on both vectors, equation 2, the user's is kept: item
rows are the work of many devices, a user's vector that of one, and it is the one that overfits.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from export.errors import RecommenderError
from export.losses import bce, softplus
from export.recommender import Recommender
from wire.manifest import MAX_ELEMENTS, BatchKind, Role

__all__ = ["LOSSES", "BprMatrixFactorisation", "MatrixFactorisation"]


class MatrixFactorisation(Recommender):
    """A private user vector and federated item rows, trained on labelled items.

    The parameters start at draws from a normal distribution:
        user_vector: float32 [d], private. Every device starts from the same one.
        item_rows: float32 [items, d], or with ``bias`` [items, d + 1], where the last column is
            the item's bias and starts at 0.

    Args:
        items: size of the catalogue, at least 1.
        dimension: d, at least 1.
        bias: whether an item has a bias.
        l2: strength of the penalty, at least 0; each sample adds l2 / 2 * |user_vector|^2 to its
            loss, and the loss that a device reports includes it.
        item_spread: standard deviation of the item rows' start, above 0.
        user_spread: standard deviation of the user vector's start, above 0.
        seed: of the start, 0 to 2**63 - 1; equal arguments give equal parameters.
    """

    kind = "mf"
    batch = BatchKind.POINTWISE

    def __init__(
        self,
        *,
        items: int,
        dimension: int = 32,
        bias: bool = False,
        l2: float = 0.01,
        item_spread: float = 0.03,
        user_spread: float = 0.1,
        seed: int = 0,
    ) -> None:
        super().__init__()
        _check_at_least(1, items=items, dimension=dimension)
        _check_at_least(0, l2=l2, seed=seed)
        _check_above_zero(item_spread=item_spread, user_spread=user_spread)
        width = dimension + bias
        if items * width > MAX_ELEMENTS:
            raise RecommenderError(
                f"items is {items} and a row has {width} numbers; expected at most {MAX_ELEMENTS} "
                "numbers in all"
            )
        self.items, self.l2 = items, l2
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

    def loss(self, item: Tensor, label: Tensor) -> Tensor:
        """Binary cross-entropy of item positions int64 [B] and labels float32 [B]: [B]."""
        return self._penalised(bce(self._affinity(self.item_rows[item]), label))

    def score(self) -> Tensor:
        """The affinity of each row at hand: float32 [R], a logit."""
        return self._affinity(self.item_rows)

    def _penalised(self, losses: Tensor) -> Tensor:
        if self.l2 == 0.0:
            return losses
        return losses + self.l2 / 2 * self.user_vector.square().sum()

    def _affinity(self, rows: Tensor) -> Tensor:
        user: Tensor = self.user_vector
        # A constant 1 for the bias column makes it one product in place of a slice and a sum.
        if rows.shape[1] > user.shape[0]:
            user = torch.cat([user, user.new_ones(1)])
        return (rows @ user.unsqueeze(1)).squeeze(1)


class BprMatrixFactorisation(MatrixFactorisation):
    """The same model, trained to score a preferred item above another one.

    Bayesian personalised ranking, -log sigmoid(score of preferred - score of other): Rendle,
    Freudenthaler, Gantner, Schmidt-Thieme: BPR, UAI 2009, BPR-OPT without its regulariser.
    """

    batch = BatchKind.PAIRWISE

    def loss(self, positive: Tensor, negative: Tensor) -> Tensor:
        """BPR of the positions of preferred and other items, both int64 [B]: float32 [B]."""
        # -log sigmoid(x) = softplus(-x); the score is linear, so one product serves both items.
        difference = self.item_rows[negative] - self.item_rows[positive]
        return self._penalised(softplus(self._affinity(difference)))


LOSSES: Mapping[str, type[MatrixFactorisation]] = {
    "bce": MatrixFactorisation,
    "bpr": BprMatrixFactorisation,
}
"""The model for each loss that `rivulet-export build mf --loss` takes."""


def _check_at_least(least: int, **arguments: float) -> None:
    for name, value in arguments.items():
        # The last bound is what a random generator takes as its seed; it is no limit to the rest.
        if not least <= value < 1 << 63:
            raise RecommenderError(f"{name} is {value}; expected at least {least}, below 2**63")


def _check_above_zero(**arguments: float) -> None:
    for name, value in arguments.items():
        if not 0.0 < value < math.inf:
            raise RecommenderError(f"{name} is {value}; expected a finite number above 0")
