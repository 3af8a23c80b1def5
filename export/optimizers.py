"""What turns the gradient of a parameter into its step: SGD, momentum, Adagrad and Adam.

The results are those of torch.optim with a dense gradient, written so that the compiled graph does
little. State starts at zero in each local update.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from wire.manifest import Optimizer

__all__ = [
    "ADAGRAD_EPSILON",
    "ADAM_BETAS",
    "ADAM_EPSILON",
    "MOMENTUM",
    "RULES",
    "Gradient",
    "Rule",
]

MOMENTUM = 0.9
ADAGRAD_EPSILON = 1e-10
ADAM_BETAS = (0.9, 0.999)
ADAM_EPSILON = 1e-8

Tensors = tuple[Tensor, ...]


@dataclass(frozen=True)
class Gradient:
    """A gradient as what is to be added up.

    Attributes:
        whole: summands of the parameter's shape.
        rows: positions and the values to add there; a position may occur several times.
    """

    whole: Tensors
    rows: tuple[tuple[Sequence[Tensor | None], Tensor], ...]

    def plus(self, term: Tensor) -> "Gradient":
        """This gradient and one more summand of the parameter's shape, the first to be added."""
        return Gradient((term, *self.whole), self.rows)

    def added_to(self, base: Tensor) -> Tensor:
        """The sum of a tensor of the parameter's shape and this gradient."""
        for term in self.whole:
            base = base + term
        for positions, values in self.rows:
            base = base.index_put(tuple(positions), values, accumulate=True)
        return base

    def dense(self, parameter: Tensor) -> Tensor:
        """The gradient as one tensor of the parameter's shape."""
        if not self.whole:
            return self.added_to(torch.zeros_like(parameter))
        return Gradient(self.whole[1:], self.rows).added_to(self.whole[0])


def _as_they_are(rates: Tensors, shared: Tensors) -> tuple[Tensors, Tensors]:
    return rates, shared


@dataclass(frozen=True)
class Rule:
    """One optimiser.

    Attributes:
        advance: takes a parameter, its gradient, its slots and what `prepare` computed; returns
            the new parameter and the new slots.
        slots: the names of the state for each parameter, of the parameter's shape.
        shared: the names of the state for all parameters together, each float32 [].
        scaled: whether the gradient is already multiplied by -learning_rate.
        prepare: what a step does once for all parameters: takes the learning rate float32 [],
            none if ``scaled``, and the shared state; returns tensors for ``advance``, and the new
            shared state.
    """

    advance: Callable[[Tensor, Gradient, Tensors, Tensors], Tensors]
    slots: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()
    scaled: bool = False
    prepare: Callable[[Tensors, Tensors], tuple[Tensors, Tensors]] = _as_they_are


def _sgd(parameter: Tensor, scaled: Gradient, _slots: Tensors, _common: Tensors) -> Tensors:
    return (scaled.added_to(parameter),)


def _momentum(parameter: Tensor, scaled: Gradient, slots: Tensors, _common: Tensors) -> Tensors:
    # torch.optim's buffer times -learning_rate, which all steps of a local update share.
    velocity = scaled.added_to(MOMENTUM * slots[0])
    return parameter + velocity, velocity


def _adagrad(parameter: Tensor, gradient: Gradient, slots: Tensors, common: Tensors) -> Tensors:
    (learning_rate,) = common
    slope = gradient.dense(parameter)
    squares = slots[0] + slope * slope
    return parameter - learning_rate * slope / (squares.sqrt() + ADAGRAD_EPSILON), squares


def _adam(parameter: Tensor, gradient: Gradient, slots: Tensors, common: Tensors) -> Tensors:
    scale, floor = common
    slope = gradient.dense(parameter)
    total = ADAM_BETAS[0] * slots[0] + slope
    squares = ADAM_BETAS[1] * slots[1] + slope * slope
    return parameter - scale * total / (squares.sqrt() + floor), total, squares


def _prepare_adam(rates: Tensors, shared: Tensors) -> tuple[Tensors, Tensors]:
    """Scale and floor of a step, with which its size is scale * total / (sqrt(squares) + floor).

    The means of the paper are sums here, never multiplied by 1 - beta, and ``shared`` is what each
    sum would be for gradients of 1: (1 - beta^t) / (1 - beta) after t steps. That takes its bias
    correction without the cancellation of 1 - beta^t in float32, and two products off each
    parameter: mean / correction is total / weight.
    """
    (learning_rate,), (total_weight, squares_weight) = rates, shared
    total_weight = ADAM_BETAS[0] * total_weight + 1.0
    squares_weight = ADAM_BETAS[1] * squares_weight + 1.0
    root = squares_weight.sqrt()
    scale = learning_rate * root / total_weight
    return (scale, ADAM_EPSILON * root), (total_weight, squares_weight)


RULES: Mapping[Optimizer, Rule] = MappingProxyType(
    {
        Optimizer.SGD: Rule(_sgd, scaled=True),
        Optimizer.MOMENTUM: Rule(_momentum, slots=("velocity",), scaled=True),
        Optimizer.ADAGRAD: Rule(_adagrad, slots=("squares",)),
        Optimizer.ADAM: Rule(
            _adam,
            slots=("total", "squares"),
            shared=("adam/total_weight", "adam/squares_weight"),
            prepare=_prepare_adam,
        ),
    }
)
"""Adagrad: Duchi, Hazan, Singer, JMLR 2011. Adam: Kingma, Ba, ICLR 2015, algorithm 1."""
