"""Linear and logistic regression: a weight for each fact about an interaction, and their sum.

The example that texts on federated learning start from (McMahan, Moore, Ramage, Hampson, Aguera y
Arcas: Communication-efficient learning of deep networks from decentralized data, AISTATS 2017).
Linear regression predicts the label by least squares, logistic regression its probability. The
intercept is private here: how often a person acts at all is not the business of others.

Context and intercept move all items alike. They make the estimate better and leave the order of the
items as it is; where context should change the order, take the factorisation machine.

Plain SGD on the sum over a batch of B samples is stable while

    learning_rate * B * (2 + |feature row|^2 + 1 / number of context fields) < 8

as neither loss bends more than that, even if all samples share all their facts. To that end the
squared error is scaled to the curvature of the logistic loss, which near 0 is log 2 + z^2 / 8 +
z (1/2 - label), and the weights of the context count with their mean.
"""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from export.errors import RecommenderError
from export.losses import bce, ridge
from export.recommender import Recommender
from export.recommenders.arguments import (
    Features,
    check_at_least,
    check_choice,
    check_table,
    context_offsets,
    feature_table,
)
from wire.manifest import BatchKind, Role

__all__ = ["LinearModel"]


class LinearModel(Recommender):
    """A private intercept, weights of features and context, and a bias an item.

    All of it starts at 0:
        intercept: float32 [1], private.
        item_rows: float32 [items, 1], each item's bias; there if ``bias`` is.
        feature_weights: float32 [F, 1], dense; there if ``features`` are.
        context_weights: float32 [sum of sizes], dense, the fields one after the other; there if
            ``context`` is.
        features: float32 [items, F], frozen rows; there if they are given.

    Args:
        items: size of the catalogue, at least 1.
        loss: ``bce`` is logistic regression; ``squared`` is linear regression, with an eighth of
            the squared error as its loss.
        context: name and number of values of each categorical fact about an interaction.
        features: content of the items, numbers [items, F] or None.
        bias: whether an item has a bias; needed where there are no features.
        l2: strength of the penalty, at least 0; each sample adds l2 / 2 * |weights|^2 to its loss,
            with the weights of features and context, and the loss that a device reports includes
            it.
        seed: taken because every recommender takes one; a start at 0 has nothing to draw.
    """

    kind = "linear"
    batch = BatchKind.POINTWISE
    item_rows: nn.Parameter | None
    features: Tensor | None
    offsets: Tensor

    def __init__(
        self,
        *,
        items: int,
        loss: Literal["bce", "squared"] = "bce",
        context: Mapping[str, int] | None = None,
        features: Features | None = None,
        bias: bool = True,
        l2: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_table(items, 1)
        check_at_least(0, l2=l2, seed=seed)
        check_choice(("bce", "squared"), loss=loss)
        if features is None and not bias:
            raise RecommenderError("without features and bias all items are equal; give one")
        self.items, self.l2, self.context = items, l2, dict(context or {})
        self._squared = loss == "squared"
        self.intercept = nn.Parameter(torch.zeros(1))
        self.register_parameter("item_rows", nn.Parameter(torch.zeros(items, 1)) if bias else None)
        if self.context:
            self.register_buffer("offsets", context_offsets(self.context), persistent=False)
            self.context_weights = nn.Parameter(torch.zeros(sum(self.context.values())))
        self.register_buffer("features", None)
        if features is not None:
            self.features = feature_table(items, features)
            self.feature_weights = nn.Parameter(torch.zeros(self.features.shape[1], 1))

    def roles(self) -> dict[str, Role]:
        """The intercept stays on the device; the weights are common."""
        roles = {"intercept": Role.PRIVATE}
        if self.item_rows is not None:
            roles["item_rows"] = Role.ROWS
        if self.context:
            roles["context_weights"] = Role.DENSE
        if self.features is not None:
            roles |= {"feature_weights": Role.DENSE, "features": Role.FROZEN_ROWS}
        return roles

    def loss(self, item: Tensor, label: Tensor, context: Tensor | None = None) -> Tensor:
        """The loss of each sample.

        Args:
            item: positions int64 [B].
            label: float32 [B].
            context: ids int64 [B, fields]; given exactly if the model has context.

        Returns:
            float32 [B]: binary cross-entropy or an eighth of the squared error, and the penalty.
        """
        rows = None if self.item_rows is None else self.item_rows[item]
        features = None if self.features is None else self.features[item]
        prediction = self._prediction(rows, features, context)
        weights = [p for name, p in self.named_parameters() if name.endswith("_weights")]
        penalty = ridge(self.l2, *weights)
        if self._squared:
            return (prediction - label).square() / 8 + penalty
        return bce(prediction, label) + penalty

    def score(self, context: Tensor | None = None) -> Tensor:
        """The prediction for each row at hand in a context int64 [fields]: float32 [R].

        It is the label itself, or with ``bce`` its logit.
        """
        return self._prediction(self.item_rows, self.features, context)

    def _prediction(
        self, rows: Tensor | None, features: Tensor | None, context: Tensor | None
    ) -> Tensor:
        """Of rows [N, 1], features [N, F] and context [N, fields] or [fields]: [N]."""
        prediction: Tensor = self.intercept
        if rows is not None:
            prediction = prediction + rows.squeeze(1)
        if features is not None:
            prediction = prediction + (features @ self.feature_weights).squeeze(1)
        if context is not None:
            prediction = prediction + self.context_weights[context + self.offsets].mean(-1)
        return prediction
