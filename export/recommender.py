"""What a recommender is: a module, its loss, its score, and a role for each of its parameters.

    class Popularity(Recommender):
        kind, batch = "popularity", BatchKind.POINTWISE

        def __init__(self, items: int) -> None:
            super().__init__()
            self.items = items
            self.bias_rows = nn.Parameter(torch.zeros(items, 1))

        def roles(self) -> dict[str, Role]:
            return {"bias_rows": Role.ROWS}

        def loss(self, item: Tensor, label: Tensor) -> Tensor:
            return bce(self.bias_rows[item].squeeze(1), label)

        def score(self) -> Tensor:
            return self.bias_rows.squeeze(1)

A device holds only the rows of the items it knows. So the compiled loss sees a *local table* of R
rows in place of each ``rows`` parameter, and the item positions in a batch count within it. A loss
that asks for the number of rows would mean another thing on the device, and is refused.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from export.errors import RecommenderError
from wire.manifest import BatchKind, ParameterSpec, Role

__all__ = ["BATCH_INPUTS", "Recommender", "example_batch", "local_copy", "parameter_specs"]

BATCH_INPUTS: Mapping[BatchKind, Mapping[str, torch.dtype]] = MappingProxyType(
    {
        BatchKind.POINTWISE: {"item": torch.int64, "label": torch.float32},
        BatchKind.PAIRWISE: {"positive": torch.int64, "negative": torch.int64},
    }
)
"""For each kind of batch the inputs of `Recommender.loss`, in order; each has shape [B]."""

_RESERVED = frozenset({"weight", "learning_rate", "loss", "score"}).union(*BATCH_INPUTS.values())


class Recommender(nn.Module, ABC):
    """A compact recommender that can be trained on a device.

    All trained parameters are float32. They are named by their path in the module
    (``head.weight``), on the wire and in the compiled programs too.

    Attributes:
        kind: short name of the model, for example ``mf``.
        batch: what one training sample is.
        items: size of the catalogue, at least 1.
    """

    kind: str
    batch: BatchKind
    items: int

    @abstractmethod
    def roles(self) -> Mapping[str, Role]:
        """The role of each parameter, by its name in ``named_parameters()``."""

    @abstractmethod
    def loss(self, *args: Any, **kwargs: Any) -> Tensor:
        """The loss of each sample; a subclass names its arguments, as `BATCH_INPUTS` does.

        The samples must not mix: the exporter weighs each loss, and padding has weight 0.

        Args:
            *args: pointwise: item positions int64 [B] and labels float32 [B] in [0, 1];
                pairwise: positions of preferred and of other items, both int64 [B].
            **kwargs: never used; there so that a subclass may name its arguments.

        Returns:
            float32 [B], differentiable in every parameter.
        """

    @abstractmethod
    def score(self) -> Tensor:
        """Scores of all rows at hand, float32 [R]; higher is better, the scale is free."""


def parameter_specs(recommender: Recommender) -> tuple[ParameterSpec, ...]:
    """Describe the parameters for the manifest, in the order of ``named_parameters()``.

    Raises:
        RecommenderError: a parameter has no role, a wrong shape or dtype, or a reserved name;
            a role has no parameter; or two names share one parameter.
    """
    roles, names = dict(recommender.roles()), _names(recommender)
    for name in roles:
        if name not in names:
            known = ", ".join(names) or "none"
            raise RecommenderError(f"roles() names {name!r}; the parameters are: {known}")
    return tuple(_spec(recommender, name, roles.get(name)) for name in names)


def local_copy(recommender: Recommender, rows: int) -> Recommender:
    """A copy with tables of ``rows`` rows of zeros in place of the catalogue.

    The tables are never copied, so this costs nothing for a large catalogue.
    """
    roles = recommender.roles()
    tables = {
        id(parameter): nn.Parameter(parameter.new_zeros(rows, *parameter.shape[1:]))
        for name, parameter in recommender.named_parameters()
        if roles.get(name) is Role.ROWS
    }
    return copy.deepcopy(recommender, tables)


def example_batch(recommender: Recommender, size: int, rows: int) -> dict[str, Tensor]:
    """A batch of ``size`` samples to trace or try a loss with; its positions are below ``rows``."""
    # A tensor of its own for each input: the tracer takes equal objects for one and the same input.
    return {
        name: torch.arange(size) % rows if dtype is torch.int64 else torch.full((size,), 0.5)
        for name, dtype in BATCH_INPUTS[recommender.batch].items()
    }


def _names(recommender: Recommender) -> list[str]:
    seen: dict[int, str] = {}
    for name, parameter in _all_parameters(recommender):
        first = seen.setdefault(parameter.untyped_storage().data_ptr(), name)
        if first != name and parameter.numel():
            raise RecommenderError(f"parameters {first!r} and {name!r} share storage; use only one")
    return [name for name, _ in _all_parameters(recommender)]


def _all_parameters(recommender: Recommender) -> Iterator[tuple[str, nn.Parameter]]:
    return recommender.named_parameters(remove_duplicate=False)


def _spec(recommender: Recommender, name: str, role: Role | None) -> ParameterSpec:
    parameter = recommender.get_parameter(name)
    shape = tuple(parameter.shape)
    if role is None:
        raise RecommenderError(
            f"parameter {name!r} has no role; add it to roles() as dense (all devices train it "
            "together), rows (a table, one row an item) or private (it never leaves the device)"
        )
    if name in _RESERVED:
        raise RecommenderError(f"parameter {name!r} has the name of a program input; rename it")
    if parameter.dtype is not torch.float32:
        raise RecommenderError(f"parameter {name!r} is {parameter.dtype}; expected torch.float32")
    if not parameter.requires_grad:
        raise RecommenderError(
            f"parameter {name!r} does not require a gradient; register a constant as a buffer"
        )
    if role is Role.ROWS and (len(shape) != 2 or shape[0] != recommender.items):
        raise RecommenderError(
            f"parameter {name!r} has the role rows and shape {list(shape)}; "
            f"expected [{recommender.items}, width]: one row for each item"
        )
    return ParameterSpec(name, role, shape)
