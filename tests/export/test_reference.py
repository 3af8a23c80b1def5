"""The reference is what it says: torch.optim, FedProx, and a clip, in numbers done by hand."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from export.recommender import Recommender
from export.reference import local_update
from wire.manifest import BatchKind, Optimizer, Role

RATE = 0.1


class Slopes(Recommender):
    """A loss whose gradient is its label, for a federated number and a private one."""

    kind, batch, items = "slopes", BatchKind.POINTWISE, 2

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Parameter(torch.zeros(1))
        self.own = nn.Parameter(torch.zeros(1))

    def roles(self) -> dict[str, Role]:
        return {"shared": Role.DENSE, "own": Role.PRIVATE}

    def loss(self, item: Tensor, label: Tensor) -> Tensor:
        return label * (self.shared + self.own) + 0 * item

    def score(self) -> Tensor:
        return self.shared.expand(self.items)


def update(optimizer: Optimizer, **arguments: float) -> dict[str, NDArray[Any]]:
    """Two steps of two samples: the gradients are 2 * 1 + 1 * 2 = 4, then 1 * 1 + 0 * 2 = 1."""
    numbers = {"learning_rate": RATE, "proximal": 0.0, "clip": np.inf, **arguments}
    inputs: dict[str, NDArray[Any]] = {
        "shared": np.array([1.0], np.float32),
        "own": np.array([2.0], np.float32),
        "item": np.zeros((2, 2), np.int64),
        "label": np.array([[1.0, 2.0], [1.0, 2.0]], np.float32),
        "weight": np.array([[2.0, 1.0], [1.0, 0.0]], np.float32),
        **{name: np.array(value, np.float32) for name, value in numbers.items()},
    }
    return local_update(Slopes(), optimizer, inputs)


@pytest.mark.parametrize(
    ("optimizer", "moved"),
    [
        (Optimizer.SGD, -RATE * (4 + 1)),
        (Optimizer.MOMENTUM, -RATE * (4 + 0.9 * 4 + 1)),
        (Optimizer.ADAGRAD, -RATE * (4 / 4 + 1 / 17**0.5)),
        # Means .4, then .46 of weight .1, then .19; squares .016, then .016984 of .001, .001999.
        (Optimizer.ADAM, -RATE * (1 + (0.46 / 0.19) / (0.016984 / 0.001999) ** 0.5)),
    ],
)
def test_each_optimiser_by_hand(optimizer: Optimizer, moved: float) -> None:
    outputs = update(optimizer)
    assert outputs["shared.new"].item() == pytest.approx(1.0 + moved, rel=1e-6)
    assert outputs["own.new"].item() == pytest.approx(2.0 + moved, rel=1e-6)


def test_the_loss_is_the_weighted_mean_before_each_step() -> None:
    # 4 * 3 over a weight of 3; then 1 * (3 - 2 * .4) over a weight of 1.
    np.testing.assert_allclose(update(Optimizer.SGD)["loss"], [4.0, 2.2], rtol=1e-6)


def test_the_proximal_term_pulls_what_is_federated() -> None:
    # After the first step the shared number is .4 away: the second one's gradient is 1 - .5 * .4.
    outputs = update(Optimizer.SGD, proximal=0.5)
    assert outputs["shared.new"].item() == pytest.approx(1.0 - RATE * (4 + 0.8), rel=1e-6)
    assert outputs["own.new"].item() == pytest.approx(2.0 - RATE * 5, rel=1e-6)


def test_the_clip_shortens_what_is_federated() -> None:
    outputs = update(Optimizer.SGD, clip=0.2)
    assert outputs["shared.new"].item() == pytest.approx(0.8, rel=1e-6)
    assert outputs["own.new"].item() == pytest.approx(1.5, rel=1e-6)
