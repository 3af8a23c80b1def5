"""Rewrite a traced loss into operators whose gradients ONNX Runtime Training gets right.

It differentiates the ONNX graph of the forward pass, not PyTorch's. Some operators have no gradient
there, the gradient of some is wrong (of ``Split``, without a word), and a stable form of a loss is
stable only in the forward direction. So the loss is put in simpler terms first.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._decomp import get_decompositions
from torch.export import default_decompositions

from export.quiet import quiet_torch

__all__ = ["lower"]

_aten = torch.ops.aten


def lower(module: nn.Module, inputs: Sequence[Tensor]) -> nn.Module:
    """Trace a module for inputs of these shapes, and put the trace in simple terms.

    Raises:
        Exception: of many unrelated types, if the module cannot be traced.
    """
    with quiet_torch():
        traced = torch.export.export(module, tuple(inputs))
        table = {
            **default_decompositions(),
            **get_decompositions([_aten.nll_loss_forward]),
            **_LOWER,
        }
        # In one piece it has a gradient; in pieces it takes a maximum, which has none.
        del table[_aten.logsumexp.default]
        lowered = traced.run_decompositions(table).module()
    # A plain one, because that of torch.export refuses eval().
    return fx.GraphModule(lowered, lowered.graph)


def _softplus(x: Tensor) -> Tensor:
    # (x + |x|) / 2 for max(x, 0), because the gradient of that has the slope 1/2 at 0.
    size = x.abs()
    return (x + size) / 2 + torch.log(1 + torch.exp(-size))


def _bounded_softplus(x: Tensor, beta: float = 1, threshold: float = 20) -> Tensor:
    del threshold  # It keeps exp() from overflowing, which here it cannot.
    return _softplus(x * beta) / beta


def _log_sigmoid(x: Tensor) -> tuple[Tensor, Tensor]:
    return -_softplus(-x), x.new_zeros(0)


def _bce(
    logit: Tensor,
    label: Tensor,
    weight: Tensor | None = None,
    pos_weight: Tensor | None = None,
    reduction: int = 1,
) -> Tensor:
    losses = (1 - label) * logit
    losses = losses + _softplus(-logit) * (
        1 if pos_weight is None else 1 + (pos_weight - 1) * label
    )
    if weight is not None:
        losses = losses * weight
    return losses if reduction == 0 else losses.mean() if reduction == 1 else losses.sum()


def _layer_norm(
    x: Tensor, shape: Sequence[int], weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    axes = list(range(x.ndim - len(shape), x.ndim))
    mean = x.mean(axes, keepdim=True)
    centred = x - mean
    scale = 1 / torch.sqrt((centred * centred).mean(axes, keepdim=True) + eps)
    y = centred * scale
    y = y if weight is None else y * weight
    return (y if bias is None else y + bias), mean, scale


def _power(x: Tensor, exponent: float) -> Tensor:
    # Pow is slow, and its gradient is two more of it.
    return x * x if exponent == 2 else NotImplemented


def _split(x: Tensor, sizes: Sequence[int], dim: int = 0) -> list[Tensor]:
    starts = [sum(sizes[:at]) for at in range(len(sizes))]
    return [x.narrow(dim, start, size) for start, size in zip(starts, sizes, strict=True)]


_LOWER: Mapping[Any, Callable[..., Any]] = MappingProxyType(
    {
        _aten.binary_cross_entropy_with_logits.default: _bce,
        _aten.log_sigmoid_forward.default: _log_sigmoid,
        _aten.native_layer_norm.default: _layer_norm,
        _aten.pow.Tensor_Scalar: _power,
        _aten.softplus.default: _bounded_softplus,
        _aten.split_with_sizes.default: _split,
    }
)
