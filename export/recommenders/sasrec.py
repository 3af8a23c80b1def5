"""Self-attentive sequential recommendation: the next action from those before it.

Kang, McAuley: Self-attentive sequential recommendation, ICDM 2018. A causal transformer reads a
window of a device's own actions; its state after each action is compared with the rows of items,
the same rows that it reads. Trained as in the paper, binary cross-entropy with one negative item at
each position (section III-E).

What differs from the paper:
- Layer normalisation comes before attention and before the feed-forward network and leaves the sum
  beside them alone, as has become usual. Its gain and bias are left out where a matrix follows that
  can take their part; they remain in the last one.
- No dropout. A device's program is deterministic: the same batches give the same update on every
  runtime, which is what lets one be checked against another. An l2 penalty on the rows that a
  sample compares takes its place.

The loss of a window is a mean over its actions, and a device has few windows: plain SGD moves
slowly here. Train it with Adam, as the paper does, and a learning rate of a few thousandths.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from export.errors import RecommenderError
from export.losses import softplus
from export.recommender import Recommender
from export.recommenders.arguments import check_at_least, check_table
from wire.manifest import BatchKind, Role

__all__ = ["SasRec"]

# Large enough that exp() of it is 0, and exact in float32 when two of them are added.
_BLOCKED = -(2.0**30)


class SasRec(Recommender):
    """A small causal transformer over windows of actions; it has no user vector.

    With d = ``dimension`` and L = ``history`` the parameters and their start (normal, but for the
    zeros and ones) are:
        item_rows: float32 [items, d].
        positions: float32 [L, d], dense; the last belongs to the newest action.
        blocks.0.attention, ...: float32 [d, 3 d], dense: to queries, keys and values.
        blocks.0.inner, blocks.0.outer, ...: float32 [d, d], dense: the feed-forward network.
        blocks.0.inner_bias, blocks.0.outer_bias, ...: float32 [d], dense, start at 0.
        gain, bias: float32 [d], dense, start at 1 and at 0: of the last layer normalisation.

    Args:
        items: size of the catalogue, at least 1.
        dimension: d, a multiple of ``heads``.
        history: L, how many actions a window has, at least 1.
        blocks: number of blocks, each attention and a feed-forward network, at least 1.
        heads: number of attention heads, at least 1.
        l2: strength of the penalty, at least 0; each position adds l2 / 2 times the squared length
            of its two rows to its loss, and the loss that a device reports includes it.
        seed: of the start, 0 to 2**63 - 1; equal arguments give equal parameters.
    """

    kind = "sasrec"
    batch = BatchKind.SEQUENCE
    causal: Tensor
    signs: Tensor

    def __init__(
        self,
        *,
        items: int,
        dimension: int = 32,
        history: int = 20,
        blocks: int = 1,
        heads: int = 1,
        l2: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_at_least(1, dimension=dimension, history=history, blocks=blocks, heads=heads)
        check_at_least(0, l2=l2, seed=seed)
        check_table(items, dimension)
        if dimension % heads:
            raise RecommenderError(
                f"dimension is {dimension}; expected a multiple of {heads} heads"
            )
        self.items, self.history, self.l2 = items, history, l2
        random = torch.Generator().manual_seed(seed)
        self.item_rows = nn.Parameter(torch.randn(items, dimension, generator=random) * 0.1)
        self.positions = nn.Parameter(torch.randn(history, dimension, generator=random) * 0.1)
        self.blocks = nn.ModuleList(_Block(dimension, heads, random) for _ in range(blocks))
        self.gain = nn.Parameter(torch.ones(dimension))
        self.bias = nn.Parameter(torch.zeros(dimension))
        future = torch.ones(history, history).triu(1)
        self.register_buffer("causal", (future + 1) * _BLOCKED, persistent=False)
        self.register_buffer("signs", torch.tensor([-1.0, 1.0]), persistent=False)

    def roles(self) -> dict[str, Role]:
        """Nothing but the actions is private: they are all that tells people apart."""
        roles = dict.fromkeys((name for name, _ in self.named_parameters()), Role.DENSE)
        return {**roles, "item_rows": Role.ROWS}

    def loss(self, history: Tensor, positive: Tensor, negative: Tensor, present: Tensor) -> Tensor:
        """The loss of each window.

        Args:
            history: positions int64 [B, L] of the actions, the newest last.
            positive: int64 [B, L], the action that came after each.
            negative: int64 [B, L], for each another item.
            present: float32 [B, L], 1 where there is an action, 0 where there is padding.

        Returns:
            float32 [B]: the mean over the actions of -log sigmoid(score of positive) -
            log(1 - sigmoid(score of negative)) and the penalty; 0 for an empty window.
        """
        states = self._states(history, present)
        # Both items at once: one gather, and one addition to the rows in the backward pass.
        rows = self.item_rows[torch.stack([positive, negative], dim=2)]
        # -log sigmoid(x) = softplus(-x), and -log(1 - sigmoid(x)) = softplus(x)
        losses = softplus((rows * states.unsqueeze(2)).sum(3) * self.signs).sum(2)
        if self.l2:
            losses = losses + self.l2 / 2 * rows.square().sum((2, 3))
        return (losses * present).sum(1) / present.sum(1).clamp(min=1)

    def score(self, history: Tensor, present: Tensor) -> Tensor:
        """Of each row at hand after a window int64 [L] with present float32 [L]: float32 [R].

        After an empty window all scores are 0.
        """
        states = self._states(history.unsqueeze(0), present.unsqueeze(0))
        newest = states[0, -1] * present[-1]
        return (self.item_rows @ newest.unsqueeze(1)).squeeze(1)

    def _states(self, history: Tensor, present: Tensor) -> Tensor:
        """What the model knows after each action: [B, L, d]. Padding is finite and seen by none."""
        # 0 where an action may look, once or twice blocked elsewhere; a row that is blocked
        # everywhere stays finite.
        mask = self.causal - present.unsqueeze(1) * _BLOCKED
        x = self.item_rows[history] + self.positions
        for block in self.blocks:
            x = block(x, mask)
        return functional.layer_norm(x, self.gain.shape, self.gain, self.bias)


class _Block(nn.Module):
    def __init__(self, dimension: int, heads: int, random: torch.Generator) -> None:
        super().__init__()

        def normal(spread: float, *shape: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(shape, generator=random) * spread)

        self.heads = heads
        spread = 1 / math.sqrt(dimension)
        self.attention = normal(spread, dimension, 3 * dimension)
        self.inner = normal(spread, dimension, dimension)
        self.inner_bias = nn.Parameter(torch.zeros(dimension))
        self.outer = normal(spread, dimension, dimension)
        self.outer_bias = nn.Parameter(torch.zeros(dimension))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = x + self._attend(_normalised(x), mask)
        hidden = torch.relu(_normalised(x) @ self.inner + self.inner_bias)
        return x + hidden @ self.outer + self.outer_bias

    def _attend(self, x: Tensor, mask: Tensor) -> Tensor:
        width = x.shape[-1] // self.heads
        parts = torch.split(x @ self.attention, width, dim=-1)
        return torch.cat(
            [
                torch.softmax(query @ key.mT / math.sqrt(width) + mask, dim=-1) @ value
                for query, key, value in zip(parts[::3], parts[1::3], parts[2::3], strict=True)
            ],
            dim=-1,
        )


def _normalised(x: Tensor) -> Tensor:
    return functional.layer_norm(x, x.shape[-1:])
