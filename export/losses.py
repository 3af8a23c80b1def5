"""Losses of single samples, stable for any finite logit and with exact gradients everywhere.

Writing softplus as ``max(x, 0) + log1p(exp(-|x|))`` is stable too, but automatic differentiation
then gives it the slope 1 at x = 0 in place of 1/2, and 0 is where a fresh model starts. PyTorch's
cross-entropy has the right slope, sigmoid(x) - label, and exports to standard operators.
"""

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["bce", "ridge", "softplus"]


def bce(logit: Tensor, label: Tensor) -> Tensor:
    """Binary cross-entropy of ``sigmoid(logit)``: float32 [B] and labels in [0, 1] to [B]."""
    return functional.binary_cross_entropy_with_logits(logit, label, reduction="none")


def softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x)), elementwise; its absolute error is below 1e-7 * max(1, |x|)."""
    return bce(x, torch.zeros_like(x))


def ridge(strength: float, *parameters: Tensor) -> Tensor | float:
    """The penalty strength / 2 * sum of all squares, float32 []: added to a sample's loss."""
    # A strength of 0 leaves no trace in a compiled program.
    if strength == 0.0:
        return 0.0
    return strength / 2 * sum(parameter.square().sum() for parameter in parameters)
