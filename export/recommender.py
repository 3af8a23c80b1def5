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
rows in place of each table (the roles ``rows`` and ``frozen-rows``), and the item positions in a
batch count within it. A loss that asks for the number of rows would mean another thing on the
device, and is refused.

What has the role ``frozen`` or ``frozen-rows`` may be a parameter or a buffer, and may require a
gradient or not: it is never trained. A buffer without a role is a constant of the program.
"""

import copy
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from export.errors import RecommenderError
from wire.manifest import BatchKind, ParameterSpec, Role

__all__ = [
    "FEDERATED",
    "TABLES",
    "TRAINED",
    "BatchInput",
    "Dimension",
    "Recommender",
    "batch_inputs",
    "example_batch",
    "local_copy",
    "parameter_specs",
    "parameter_values",
    "score_inputs",
]

Dimension = int | str
"""The size of a dimension, or its name if it may vary."""

TABLES = frozenset({Role.ROWS, Role.FROZEN_ROWS})
FEDERATED = frozenset({Role.DENSE, Role.ROWS})
TRAINED = FEDERATED | {Role.PRIVATE}

_FIELD_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,99}")


@dataclass(frozen=True, slots=True)
class BatchInput:
    """One input of `Recommender.loss`.

    Attributes:
        dtype: torch.int64 or torch.float32.
        width: numbers a sample: the shape is [B, width]; None for a single one and the shape [B].
    """

    dtype: torch.dtype
    width: int | None = None

    def shape(self, *leading: Dimension) -> tuple[Dimension, ...]:
        """The whole shape behind its leading dimensions, such as ``("S", "B")``."""
        return leading if self.width is None else (*leading, self.width)


_SAMPLES: Mapping[BatchKind, Mapping[str, torch.dtype]] = MappingProxyType(
    {
        BatchKind.POINTWISE: {"item": torch.int64, "label": torch.float32},
        BatchKind.PAIRWISE: {"positive": torch.int64, "negative": torch.int64},
    }
)
_RESERVED = frozenset(
    {
        *("weight", "learning_rate", "proximal", "clip", "loss", "score"),
        *("item", "label", "positive", "negative", "context", "history", "present"),
    }
)


class Recommender(nn.Module, ABC):
    """A compact recommender that can be trained on a device.

    All parameters are float32. They are named by their path in the module (``head.weight``), on
    the wire and in the compiled programs too.

    Attributes:
        kind: short name of the model, for example ``mf``.
        batch: what one training sample is.
        items: size of the catalogue, at least 1.
        context: the categorical facts that the model sees of an interaction: the name of each,
            and how many values it has. Not with ``sequence`` batches.
        history: how many preceding interactions the model sees of an interaction, 0 for none; with
            ``sequence`` batches the length of a window, at least 1.
    """

    kind: str
    batch: BatchKind
    items: int
    context: Mapping[str, int] = MappingProxyType({})
    history: int = 0

    @abstractmethod
    def roles(self) -> Mapping[str, Role]:
        """The role of each parameter, by its name in ``named_parameters()``.

        A buffer may be named too, as ``frozen`` or ``frozen-rows``.
        """

    @abstractmethod
    def loss(self, *args: Any, **kwargs: Any) -> Tensor:
        """The loss of each sample; a subclass names its arguments, as `batch_inputs` does.

        The samples must not mix: the exporter weighs each loss, and padding has weight 0. The loss
        and its gradient must be finite whatever the padding: a window may be empty.

        Args:
            *args: pointwise: item positions int64 [B] and labels float32 [B] in [0, 1];
                pairwise: positions of preferred and of other items, both int64 [B]. Both are
                followed by ``context`` int64 [B, fields], ids in the order of `context`, if the
                model has any, and by ``history`` int64 [B, L] and ``present`` float32 [B, L] if
                it has a history of length L: item positions, the newest last, padded on the
                left; present is 1 where there is an item and 0 where there is padding.
                sequence: history, positive, negative int64 [B, L] and present float32 [B, L]:
                ``history[b, t]`` is the action before ``positive[b, t]``.
            **kwargs: never used; there so that a subclass may name its arguments.

        Returns:
            float32 [B], differentiable in every trained parameter.
        """

    @abstractmethod
    def score(self, *args: Any, **kwargs: Any) -> Tensor:
        """Scores of all rows at hand, float32 [R]; higher is better, the scale is free.

        Args:
            *args: never used; there so that a subclass may name its arguments.
            **kwargs: those of ``context`` int64 [fields], ``history`` int64 [L] and ``present``
                float32 [L] that the model declares: the situation to score the rows in.
        """


def batch_inputs(recommender: Recommender) -> dict[str, BatchInput]:
    """The inputs of `Recommender.loss` in order, by name.

    Raises:
        RecommenderError: ``context`` or ``history`` breaks a rule.
    """
    _check_declared(recommender)
    length = recommender.history
    window = {"history": BatchInput(torch.int64, length)}
    present = {"present": BatchInput(torch.float32, length)}
    if recommender.batch is BatchKind.SEQUENCE:
        following = {name: BatchInput(torch.int64, length) for name in ("positive", "negative")}
        return window | following | present
    inputs = {name: BatchInput(dtype) for name, dtype in _SAMPLES[recommender.batch].items()}
    if recommender.context:
        inputs["context"] = BatchInput(torch.int64, len(recommender.context))
    return inputs | window | present if length else inputs


def score_inputs(recommender: Recommender) -> dict[str, BatchInput]:
    """The inputs of `Recommender.score` by name; each is one sample's, so without the B."""
    named = ("context", "history", "present")
    return {name: what for name, what in batch_inputs(recommender).items() if name in named}


def parameter_specs(recommender: Recommender) -> tuple[ParameterSpec, ...]:
    """Describe the parameters for the manifest, in the order of `parameter_values`.

    Raises:
        RecommenderError: a parameter has no role, a wrong shape or dtype, or a reserved name;
            a role has no parameter; or two names share one parameter.
    """
    roles, values = dict(recommender.roles()), parameter_values(recommender)
    for name in roles:
        if name not in values:
            known = ", ".join(values) or "none"
            raise RecommenderError(f"roles() names {name!r}; the parameters are: {known}")
    _check_storage(values)
    return tuple(_spec(recommender, name, roles.get(name)) for name in values)


def parameter_values(recommender: Recommender) -> dict[str, Tensor]:
    """The parameters in order, then the buffers that `Recommender.roles` names; not copied."""
    return {name: tensor.detach() for name, tensor in _tensors(recommender).items()}


def local_copy(recommender: Recommender, rows: int) -> Recommender:
    """A copy with tables of ``rows`` rows of zeros in place of the catalogue.

    The tables are never copied, so this costs nothing for a large catalogue. In the copy exactly
    the trained parameters require a gradient.
    """
    roles = recommender.roles()
    tables = {
        id(tensor): _table(tensor, rows)
        for name, tensor in _tensors(recommender).items()
        if roles.get(name) in TABLES
    }
    local = copy.deepcopy(recommender, tables)
    for name, parameter in local.named_parameters():
        parameter.requires_grad_(roles.get(name) in TRAINED)
    return local


def example_batch(recommender: Recommender, size: int, rows: int) -> dict[str, Tensor]:
    """A batch of ``size`` samples to trace or try a loss with; its positions are below ``rows``.

    Its windows have all lengths from none to full.
    """
    random = torch.Generator().manual_seed(0)
    return {
        name: _example(recommender, name, what, (size, rows), random)
        for name, what in batch_inputs(recommender).items()
    }


def _example(
    recommender: Recommender,
    name: str,
    what: BatchInput,
    extent: tuple[int, int],
    random: torch.Generator,
) -> Tensor:
    size, rows = extent
    shape = [int(n) for n in what.shape(size)]
    if name == "context":
        ids = [torch.randint(n, (size,), generator=random) for n in recommender.context.values()]
        return torch.stack(ids, dim=1)
    if name == "present":
        lengths = torch.arange(size) % (shape[1] + 1)
        return (torch.arange(shape[1]) >= shape[1] - lengths.unsqueeze(1)).float()
    if what.dtype is torch.int64:
        return torch.randint(rows, shape, generator=random)
    return torch.randint(2, shape, generator=random).float()


def _check_declared(recommender: Recommender) -> None:
    for name, size in recommender.context.items():
        if not _FIELD_NAME.fullmatch(name):
            raise RecommenderError(
                f"context names a field {name!r}; expected letters, digits, '_', '.' and '-', "
                "with a letter first"
            )
        if size < 1:
            raise RecommenderError(f"context field {name!r} has {size} values; expected at least 1")
    if recommender.history < 0:
        raise RecommenderError(f"history is {recommender.history}; expected at least 0")
    if recommender.batch is not BatchKind.SEQUENCE:
        return
    if recommender.history < 1:
        raise RecommenderError("history is 0; sequence batches need a window of at least 1")
    if recommender.context:
        raise RecommenderError("context has fields; a model of sequence batches cannot have any")


def _check_storage(values: Mapping[str, Tensor]) -> None:
    seen: dict[int, str] = {}
    for name, value in values.items():
        first = seen.setdefault(value.untyped_storage().data_ptr(), name)
        if first != name and value.numel():
            raise RecommenderError(
                f"parameters {first!r} and {name!r} share storage; use one parameter in both places"
            )


def _tensors(recommender: Recommender) -> dict[str, Tensor]:
    roles = recommender.roles()
    buffers = recommender.named_buffers(remove_duplicate=False)
    return {
        **dict(recommender.named_parameters(remove_duplicate=False)),
        **{name: buffer for name, buffer in buffers if name in roles},
    }


def _table(tensor: Tensor, rows: int) -> Tensor:
    table = tensor.new_zeros(rows, *tensor.shape[1:])
    return nn.Parameter(table) if isinstance(tensor, nn.Parameter) else table


def _spec(recommender: Recommender, name: str, role: Role | None) -> ParameterSpec:
    tensor = _tensors(recommender)[name]
    shape = tuple(tensor.shape)
    if role is None:
        raise RecommenderError(
            f"parameter {name!r} has no role; add it to roles() as dense (all devices train it "
            "together), rows (a table, one row an item), private (it never leaves the device) or "
            "frozen, frozen-rows (nobody trains it)"
        )
    if name in _RESERVED:
        raise RecommenderError(f"parameter {name!r} has the name of a program input; rename it")
    if tensor.dtype is not torch.float32:
        raise RecommenderError(f"parameter {name!r} is {tensor.dtype}; expected torch.float32")
    if role in TRAINED and not tensor.requires_grad:
        raise RecommenderError(
            f"parameter {name!r} does not require a gradient; give it the role frozen or "
            "frozen-rows, or let it be trained"
        )
    if role in TABLES and (len(shape) != 2 or shape[0] != recommender.items):
        raise RecommenderError(
            f"parameter {name!r} has the role {role} and shape {list(shape)}; "
            f"expected [{recommender.items}, width]: one row for each item"
        )
    return ParameterSpec(name, role, shape)
