"""The local update in eager PyTorch, with torch.optim: what every runtime is compared with."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from export.optimizers import ADAGRAD_EPSILON, ADAM_BETAS, ADAM_EPSILON, MOMENTUM
from export.recommender import (
    FEDERATED,
    TABLES,
    TRAINED,
    Recommender,
    batch_inputs,
    local_copy,
    parameter_values,
)
from wire.manifest import Optimizer

__all__ = ["local_update", "make_optimizer"]

Arrays = Mapping[str, NDArray[Any]]


def local_update(
    recommender: Recommender, optimizer: Optimizer, inputs: Arrays
) -> dict[str, NDArray[Any]]:
    """Run a local update.

    Args:
        recommender: the model; it is not changed, and the values of its parameters play no part.
        optimizer: what turns gradients into steps.
        inputs: those of the update program, as `export.training_graph` defines them; all
            floating-point ones may be float64, and then so is the whole update.

    Returns:
        The outputs of the update program.
    """
    tensors = {name: torch.tensor(values) for name, values in inputs.items()}
    local, start = _local(recommender, tensors)
    roles = recommender.roles()
    trained = {n: p for n, p in local.named_parameters() if roles[n] in TRAINED}
    federated = {n: p for n, p in trained.items() if roles[n] in FEDERATED}
    engine = make_optimizer(optimizer, trained.values(), float(tensors["learning_rate"]))
    losses = []
    for step, weight in enumerate(tensors["weight"]):
        loss = local.loss(*(tensors[name][step] for name in batch_inputs(recommender)))
        objective = (weight * loss).sum()
        losses.append(objective.detach() / weight.sum().clamp(min=1.0))
        engine.zero_grad()
        torch.autograd.backward(objective + tensors["proximal"] / 2 * _apart(federated, start))
        engine.step()
    _clip(federated, start, float(tensors["clip"]))
    new = {f"{name}.new": parameter.detach().numpy() for name, parameter in trained.items()}
    return {**new, "loss": torch.stack(losses).numpy()}


def make_optimizer(
    optimizer: Optimizer, parameters: Iterable[Tensor], learning_rate: float
) -> torch.optim.Optimizer:
    """What an optimizer of the manifest is in PyTorch."""
    if optimizer is Optimizer.SGD:
        return torch.optim.SGD(parameters, lr=learning_rate)
    if optimizer is Optimizer.MOMENTUM:
        return torch.optim.SGD(parameters, lr=learning_rate, momentum=MOMENTUM)
    if optimizer is Optimizer.ADAGRAD:
        return torch.optim.Adagrad(parameters, lr=learning_rate, eps=ADAGRAD_EPSILON)
    return torch.optim.Adam(parameters, lr=learning_rate, betas=ADAM_BETAS, eps=ADAM_EPSILON)


def _local(
    recommender: Recommender, tensors: Mapping[str, Tensor]
) -> tuple[Recommender, dict[str, Tensor]]:
    """A copy of the recommender with the given values, and those values."""
    roles = recommender.roles()
    rows = [len(tensors[name]) for name, role in roles.items() if role in TABLES]
    local = local_copy(recommender, rows[0] if rows else 1).to(tensors["weight"].dtype)
    values = parameter_values(local)
    for name, value in values.items():
        value.copy_(tensors[name])
    return local, {name: value.clone() for name, value in values.items()}


def _apart(parameters: Mapping[str, Tensor], start: Mapping[str, Tensor]) -> Tensor:
    """The squared distance of all parameters together from their start."""
    squares = [(value - start[name]).square().sum() for name, value in parameters.items()]
    return torch.stack(squares).sum()


@torch.no_grad()
def _clip(parameters: Mapping[str, Tensor], start: Mapping[str, Tensor], bound: float) -> None:
    exact = {name: value.double() - start[name] for name, value in parameters.items()}
    norm = float(np.sqrt(sum(float(delta.square().sum()) for delta in exact.values())))
    if norm <= bound:
        return
    for name, value in parameters.items():
        value.copy_(start[name] + exact[name] * (bound / norm))
