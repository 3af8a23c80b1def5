"""Factorisation machine: every pair of facts about an interaction has an effect of its own.

Rendle: Factorization machines, ICDM 2010, equation 1. The facts here are the user, the item, the
item's features and the context; the effect of a pair is the product of two vectors, so that pairs
never seen together still get one. The sum over all pairs is taken in linear time (lemma 3.1):

    sum_{i<j} <v_i, v_j> x_i x_j = 1/2 sum_k ((sum_i v_ik x_i)^2 - sum_i (v_ik x_i)^2)

The global bias of the paper is part of the user's own, as each device has one user.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from export.losses import bce, ridge
from export.recommender import Recommender
from export.recommenders.arguments import (
    Features,
    check_at_least,
    check_table,
    context_offsets,
    feature_table,
)
from wire.manifest import BatchKind, Role

__all__ = ["FactorisationMachine"]


class FactorisationMachine(Recommender):
    """Pairwise effects of user, item, features and context, trained on labelled items.

    A vector has d + 1 numbers: the last is the linear weight of equation 1 and starts at 0, the
    others start at draws from a normal distribution. The parameters:
        user_vector: float32 [d + 1], private. Every device starts from the same one.
        item_rows: float32 [items, d + 1].
        context_table: float32 [sum of sizes, d + 1], dense, the fields one below the other; there
            if ``context`` is.
        feature_table: float32 [F, d + 1], dense; there if ``features`` are.
        features: float32 [items, F], frozen rows; there if they are given.

    Args:
        items: size of the catalogue, at least 1.
        dimension: d, length of the vectors, at least 1.
        context: name and number of values of each categorical fact about an interaction.
        features: content of the items, numbers [items, F] or None. With plain SGD choose a scale
            that gives rows a norm of about 1.
        l2: strength of the penalty, at least 0; each sample adds l2 / 2 * |user_vector|^2 to its
            loss, and the loss that a device reports includes it.
        seed: of the start, 0 to 2**63 - 1; equal arguments give equal parameters.
    """

    kind = "fm"
    batch = BatchKind.POINTWISE
    features: Tensor | None
    offsets: Tensor
    pairs: Tensor
    linear: Tensor

    def __init__(
        self,
        *,
        items: int,
        dimension: int = 16,
        context: Mapping[str, int] | None = None,
        features: Features | None = None,
        l2: float = 0.01,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_at_least(1, dimension=dimension)
        check_at_least(0, l2=l2, seed=seed)
        check_table(items, dimension + 1)
        self.items, self.l2, self.context = items, l2, dict(context or {})
        random = torch.Generator().manual_seed(seed)

        def vectors(spread: float, *leading: int) -> nn.Parameter:
            start = torch.randn(*leading, dimension, generator=random) * spread
            return nn.Parameter(torch.cat([start, torch.zeros(*leading, 1)], dim=-1))

        self.user_vector = vectors(0.1)
        self.item_rows = vectors(0.03, items)
        if self.context:
            self.register_buffer("offsets", context_offsets(self.context), persistent=False)
            self.context_table = vectors(0.03, sum(self.context.values()))
        self.register_buffer("features", None)
        if features is not None:
            self.features = feature_table(items, features)
            self.feature_table = vectors(0.03, self.features.shape[1])
        # Two products with constants, in place of slices that the backward pass would have to pad.
        linear = torch.cat([torch.zeros(dimension, 1), torch.ones(1, 1)])
        self.register_buffer("linear", linear, persistent=False)
        self.register_buffer("pairs", (1 - linear) / 2, persistent=False)

    def roles(self) -> dict[str, Role]:
        """The user's vector stays on the device; the context's and features' are common."""
        roles = {"user_vector": Role.PRIVATE, "item_rows": Role.ROWS}
        if self.context:
            roles["context_table"] = Role.DENSE
        if self.features is not None:
            roles |= {"feature_table": Role.DENSE, "features": Role.FROZEN_ROWS}
        return roles

    def loss(self, item: Tensor, label: Tensor, context: Tensor | None = None) -> Tensor:
        """The loss of each sample.

        Args:
            item: positions int64 [B].
            label: float32 [B].
            context: ids int64 [B, fields]; given exactly if the model has context.

        Returns:
            float32 [B]: binary cross-entropy and the penalty.
        """
        features = None if self.features is None else self.features[item]
        logit = self._logit(self.item_rows[item], features, context)
        return bce(logit, label) + ridge(self.l2, self.user_vector)

    def score(self, context: Tensor | None = None) -> Tensor:
        """The logit of each row at hand in a context int64 [fields]: float32 [R]."""
        return self._logit(self.item_rows, self.features, context)

    def _logit(self, rows: Tensor, features: Tensor | None, context: Tensor | None) -> Tensor:
        """Of rows [N, d + 1], features [N, F] and context [N, fields] or [fields]: [N]."""
        total = rows + self.user_vector
        squares = rows.square() + self.user_vector.square()
        if context is not None:
            facts = self.context_table[context + self.offsets]
            total = total + facts.sum(-2)
            squares = squares + facts.square().sum(-2)
        if features is not None:
            total = total + features @ self.feature_table
            squares = squares + features.square() @ self.feature_table.square()
        return ((total.square() - squares) @ self.pairs + total @ self.linear).squeeze(1)
