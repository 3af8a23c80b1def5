"""A lowered loss has the values and the slopes that PyTorch gives it."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from export.ort_lowering import lower

Function = Callable[[Tensor], Tensor]
LABELS = torch.tensor([[0.3], [1.0], [0.0], [0.7]])
# Columns at the edge of what float32 holds, at 0 where slopes may break, and elsewhere.
VALUES = torch.tensor([-900.0, -30.0, -1.5, 0.0, 0.25, 3.0, 30.0, 900.0]).repeat(4, 1)


class Applied(nn.Module):
    def __init__(self, function: Function) -> None:
        super().__init__()
        self._function = function

    def forward(self, x: Tensor) -> Tensor:
        return self._function(x)


def bce(x: Tensor) -> Tensor:
    labels = LABELS.expand_as(x)
    return functional.binary_cross_entropy_with_logits(x, labels, reduction="none")


def weighted_bce(x: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(
        x, LABELS.expand_as(x), weight=torch.arange(8.0), pos_weight=torch.tensor(3.0)
    )


def normalised(x: Tensor) -> Tensor:
    gain = torch.arange(1.0, 5.0)
    return functional.layer_norm(x.reshape(4, 2, 4) / 100, (4,), gain, gain / 2, eps=1e-3)


def half(x: Tensor) -> Tensor:
    return torch.split(x, 3, dim=1)[1] * 2


def squared(x: Tensor) -> Tensor:
    return (x / 100) ** 2 + (x / 100) ** 3


def gentle(x: Tensor) -> Tensor:
    return functional.softplus(x, beta=0.5)


def chosen(x: Tensor) -> Tensor:
    return functional.cross_entropy(x / 100, torch.tensor([0, 3, 5, 7]), reduction="none")


def pooled(x: Tensor) -> Tensor:
    return torch.logsumexp(x / 100, dim=1)


@pytest.mark.parametrize(
    ("function", "gone"),
    [
        (bce, "binary_cross_entropy_with_logits"),
        (weighted_bce, "binary_cross_entropy_with_logits"),
        (gentle, "softplus"),
        (functional.logsigmoid, "log_sigmoid"),
        (normalised, "layer_norm"),
        (half, "split"),
        (squared, "pow.Tensor_Scalar](args = (%div, 2)"),
        (chosen, "nll_loss"),
        (pooled, "amax"),
    ],
)
def test_values_and_slopes_are_kept(function: Function, gone: str) -> None:
    lowered = lower(Applied(function), (VALUES,))
    assert gone not in str(lowered.graph)
    given, expected = VALUES.clone().requires_grad_(), VALUES.clone().requires_grad_()
    one, other = lowered(given), function(expected)
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    (slope,) = torch.autograd.grad(one.sum(), given)
    (right,) = torch.autograd.grad(other.sum(), expected)
    torch.testing.assert_close(slope, right, rtol=1e-5, atol=1e-6)
