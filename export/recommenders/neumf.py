"""Neural matrix factorisation: a product of vectors and a small network, side by side.

He, Liao, Zhang, Nie, Hu, Chua: Neural collaborative filtering, WWW 2017. Generalised matrix
factorisation (GMF, equation 9) and a multi-layer perceptron (MLP, equation 10) each have vectors
of their own for user and item; one linear layer joins the two (equation 12). The user's vectors
stay on the device; the towers, which the paper trains on all users' data at one place, are what
the devices train together.

Two things are written otherwise than in the paper and compute the same. The user is one and the
same in a whole batch, so the first layer of the MLP takes the user's half once and not for each
sample. And GMF's share of the last layer is a product of the item with one vector, head * user.
"""

import math

import torch
from torch import Tensor, nn

from export.losses import bce, ridge
from export.recommender import Recommender
from export.recommenders.arguments import check_at_least, check_table
from wire.manifest import BatchKind, Role

__all__ = ["NeuralMatrixFactorisation"]


class NeuralMatrixFactorisation(Recommender):
    """GMF and MLP over private user vectors and federated item rows, trained on labelled items.

    With d = ``dimension``, h the width of a layer and k that of the last, the parameters and
    their start (normal, but for the zeros and ones) are:
        user_gmf, user_mlp: float32 [d], private. Every device starts from the same ones.
        item_rows: float32 [items, 2 d], the columns of GMF first.
        user_layer: float32 [d, h0], dense: the user's half of the first layer.
        layers.0, ...: float32 [width below, h], dense; layers.0 is the item's half of the first.
        biases.0, ...: float32 [h], dense, start at 0.
        head_gmf: float32 [d], dense, starts at 1: at first GMF is plain matrix factorisation.
        head_mlp: float32 [k, 1], dense.
        head_bias: float32 [1], dense, starts at 0.

    Args:
        items: size of the catalogue, at least 1.
        dimension: d, length of each of the four vectors, at least 1.
        hidden: width of the MLP's first layer; each further one has half of the one before it.
        layers: how many layers the MLP has, at least 1.
        l2: strength of the penalty, at least 0; each sample adds l2 / 2 * |user's vectors|^2 to its
            loss, and the loss that a device reports includes it.
        seed: of the start, 0 to 2**63 - 1; equal arguments give equal parameters.
    """

    kind = "neumf"
    batch = BatchKind.POINTWISE

    def __init__(
        self,
        *,
        items: int,
        dimension: int = 32,
        hidden: int = 32,
        layers: int = 2,
        l2: float = 0.01,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_at_least(1, dimension=dimension, hidden=hidden, layers=layers)
        check_at_least(0, l2=l2, seed=seed)
        check_table(items, 2 * dimension)
        self.items, self.l2 = items, l2
        random = torch.Generator().manual_seed(seed)

        def normal(spread: float, *shape: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(shape, generator=random) * spread)

        widths = [max(hidden >> at, 1) for at in range(layers)]
        # He's initialisation; what the first layer takes in are two vectors.
        spreads = [math.sqrt(2 / width) for width in [2 * dimension, *widths[:-1]]]
        shapes = zip([dimension, *widths[:-1]], widths, strict=True)
        self.user_gmf = normal(0.1, dimension)
        self.user_mlp = normal(0.1, dimension)
        self.item_rows = normal(0.03, items, 2 * dimension)
        self.user_layer = normal(spreads[0], dimension, hidden)
        self.layers = nn.ParameterList(
            normal(spread, *shape) for spread, shape in zip(spreads, shapes, strict=True)
        )
        self.biases = nn.ParameterList(torch.zeros(width) for width in widths)
        self.head_gmf = nn.Parameter(torch.ones(dimension))
        self.head_mlp = normal(math.sqrt(1 / widths[-1]), widths[-1], 1)
        self.head_bias = nn.Parameter(torch.zeros(1))

    def roles(self) -> dict[str, Role]:
        """The user's vectors stay on the device; all devices train both towers."""
        roles = dict.fromkeys((name for name, _ in self.named_parameters()), Role.DENSE)
        private = {"user_gmf": Role.PRIVATE, "user_mlp": Role.PRIVATE}
        return {**roles, **private, "item_rows": Role.ROWS}

    def loss(self, item: Tensor, label: Tensor) -> Tensor:
        """Binary cross-entropy of item positions int64 [B] and labels float32 [B]: [B]."""
        penalty = ridge(self.l2, self.user_gmf, self.user_mlp)
        return bce(self._logit(self.item_rows[item]), label) + penalty

    def score(self) -> Tensor:
        """The logit of each row at hand: float32 [R]."""
        return self._logit(self.item_rows)

    def _logit(self, rows: Tensor) -> Tensor:
        for_gmf, x = torch.split(rows, self.user_gmf.shape[0], dim=1)
        gmf = for_gmf @ (self.head_gmf * self.user_gmf).unsqueeze(1)
        biases = list(self.biases)
        biases[0] = biases[0] + self.user_mlp.unsqueeze(0) @ self.user_layer
        for layer, bias in zip(self.layers, biases, strict=True):
            x = torch.relu(x @ layer + bias)
        return (gmf + x @ self.head_mlp + self.head_bias).squeeze(1)
