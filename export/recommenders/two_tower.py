"""Two towers: one network for items, one for what a person did before, their product is the score.

Yi, Yang, Hong, Cheng, Heldt, Kumthekar, Zhao, Wei, Chi: Sampling-bias-corrected neural modeling for
large corpus item recommendations, RecSys 2019, section 3. As in Covington, Adams, Sargin: Deep
neural networks for YouTube recommendations, RecSys 2016, section 3.2, the person is the mean of the
items in their history; so is anyone with a history, known or new. The item tower sees the content
of an item and not its number: an item that nobody has touched gets a score like any other.

Both papers train with a softmax over many sampled items. A device samples a few of its own, so here
each positive stands against one of them (``bpr``: softmax over a pair), or each is labelled
(``bce``).
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn

from export.errors import RecommenderError
from export.losses import bce, ridge, softplus
from export.recommender import Recommender
from export.recommenders.arguments import (
    Features,
    check_at_least,
    check_choice,
    check_table,
    feature_table,
)
from wire.manifest import BatchKind, Role

__all__ = ["TwoTower"]


class TwoTower(Recommender):
    """Towers over the content of items and over the mean of a history.

    With d = ``dimension``, h = ``hidden`` and x = F, or F + d with ``residual``, the parameters and
    their start (normal, but for the zeros) are:
        item_layer, item_head: float32 [F, h] and [h, d], dense.
        item_bias: float32 [h], dense, starts at 0.
        user_layer, user_head: float32 [x, h] and [h, d], dense.
        user_bias: float32 [h], dense, starts at 0.
        bias: float32 [1], dense, starts at 0; there with ``bce``.
        item_rows: float32 [items, d], what an item is beyond its content, starts at 0; there if
            ``residual`` is.
        user_vector: float32 [d], private, what a person is beyond their history, starts at 0; there
            if ``personal`` is.
        features: float32 [items, F], frozen rows.

    Args:
        items: size of the catalogue, at least 1.
        features: content of the items, numbers [items, F]. With plain SGD choose a scale that gives
            rows a norm of about 1.
        dimension: d, length of the vectors, at least 1.
        hidden: h, width of the hidden layer of each tower, at least 1.
        history: how many of the latest interactions the user tower sees, at least 1.
        loss: ``bpr`` learns which of two items is preferred, ``bce`` how likely an item is.
        residual: whether items have trained rows beside their content.
        personal: whether a device has a private vector beside the history.
        l2: strength of the penalty, at least 0; each sample adds l2 / 2 * |user_vector|^2 to its
            loss, and the loss that a device reports includes it.
        seed: of the start, 0 to 2**63 - 1; equal arguments give equal parameters.
    """

    kind = "two_tower"
    features: Tensor

    def __init__(
        self,
        *,
        items: int,
        features: Features | None = None,
        dimension: int = 32,
        hidden: int = 64,
        history: int = 20,
        loss: Literal["bpr", "bce"] = "bpr",
        residual: bool = False,
        personal: bool = False,
        l2: float = 0.01,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_at_least(1, dimension=dimension, hidden=hidden, history=history)
        check_at_least(0, l2=l2, seed=seed)
        check_choice(("bpr", "bce"), loss=loss)
        check_table(items, dimension)
        if features is None:
            raise RecommenderError("two_tower scores items by their content; give features")
        self.items, self.l2, self.history = items, l2, history
        self.batch = BatchKind.PAIRWISE if loss == "bpr" else BatchKind.POINTWISE
        self.register_buffer("features", feature_table(items, features))
        width = self.features.shape[1]
        random = torch.Generator().manual_seed(seed)

        def normal(spread: float, *shape: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(shape, generator=random) * spread)

        # Hidden layers and vectors start with a length of about 1, whatever the scale of the
        # features: a step of plain SGD on the sum over a batch is too long for longer ones.
        length = self.features.square().sum(1).mean().sqrt().clamp(min=1e-6).item()
        inner, outer = math.sqrt(2 / hidden) / length, math.sqrt(1 / dimension)
        self.item_layer = normal(inner, width, hidden)
        self.item_bias = nn.Parameter(torch.zeros(hidden))
        self.item_head = normal(outer, hidden, dimension)
        self.user_layer = normal(inner, width + residual * dimension, hidden)
        self.user_bias = nn.Parameter(torch.zeros(hidden))
        self.user_head = normal(outer, hidden, dimension)
        self.bias = nn.Parameter(torch.zeros(1)) if loss == "bce" else None
        self.item_rows = nn.Parameter(torch.zeros(items, dimension)) if residual else None
        self.user_vector = nn.Parameter(torch.zeros(dimension)) if personal else None

    def roles(self) -> dict[str, Role]:
        """The towers are common; what is private is the history, and the vector beside it."""
        roles = dict.fromkeys((name for name, _ in self.named_parameters()), Role.DENSE)
        if self.item_rows is not None:
            roles["item_rows"] = Role.ROWS
        if self.user_vector is not None:
            roles["user_vector"] = Role.PRIVATE
        return {**roles, "features": Role.FROZEN_ROWS}

    def loss(self, item: Tensor, against: Tensor, history: Tensor, present: Tensor) -> Tensor:
        """The loss of each sample.

        Args:
            item: positions int64 [B] of preferred items (bpr), or of labelled ones (bce).
            against: positions int64 [B] of the other items (bpr), or labels float32 [B] (bce).
            history: positions int64 [B, L] of the items before.
            present: float32 [B, L], 1 where the history has an item, 0 where it is padding.

        Returns:
            float32 [B]: -log sigmoid(score of preferred - score of other), or binary cross-entropy.
        """
        user = self._user(history, present)
        penalty = 0.0 if self.user_vector is None else ridge(self.l2, self.user_vector)
        if self.bias is not None:
            logit = (self._items(item) * user).sum(1) + self.bias
            return bce(logit, against) + penalty
        # -log sigmoid(x) = softplus(-x)
        difference = self._items(against) - self._items(item)
        return softplus((difference * user).sum(1)) + penalty

    def score(self, history: Tensor, present: Tensor) -> Tensor:
        """Of each row at hand after a history int64 [L] with present float32 [L]: float32 [R]."""
        user = self._user(history.unsqueeze(0), present.unsqueeze(0))
        scores = (self._items(slice(None)) @ user.T).squeeze(1)
        return scores if self.bias is None else scores + self.bias

    def _items(self, item: Tensor | slice) -> Tensor:
        """The item tower below its head, and residuals, of N positions: [N, h] or [N, h + d]."""
        hidden = torch.relu(self.features[item] @ self.item_layer + self.item_bias)
        if self.item_rows is None:
            return hidden
        return torch.cat([hidden, self.item_rows[item]], dim=1)

    def _user(self, history: Tensor, present: Tensor) -> Tensor:
        """What N histories [N, L] look for in items, in the form of `_items`.

        The mean of an empty history is zeros.
        """
        share = (present / present.sum(1, keepdim=True).clamp(min=1)).unsqueeze(1)
        pooled = (share @ self.features[history]).squeeze(1)
        if self.item_rows is not None:
            beyond = (share @ self.item_rows[history]).squeeze(1)
            pooled = torch.cat([pooled, beyond], dim=1)
        hidden = torch.relu(pooled @ self.user_layer + self.user_bias)
        user = hidden @ self.user_head
        if self.user_vector is not None:
            user = user + self.user_vector
        # <head' item, user> = <item, head user>: so the item tower's head, which has no bias, is
        # applied once a history and not once an item.
        wanted = user @ self.item_head.T
        return wanted if self.item_rows is None else torch.cat([wanted, user], dim=1)
