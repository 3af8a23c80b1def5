"""A recommender whose loss is given by a test."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from export.losses import bce
from export.recommender import Recommender
from wire.manifest import BatchKind, Role

__all__ = ["Loss", "Probe", "good", "logit", "place"]

Loss = Callable[["Probe", Tensor, Tensor], Tensor]


class Probe(Recommender):
    """Two tables, a user, a constant, and layers that a loss may misuse."""

    kind, batch = "probe", BatchKind.POINTWISE
    seen: Tensor
    groups: Tensor

    def __init__(self, loss: Loss) -> None:
        super().__init__()
        self.items = 8_000
        self.rows = nn.Parameter(torch.ones(self.items, 2))
        self.user = nn.Parameter(torch.ones(2))
        self.padded = nn.Embedding(self.items, 2, padding_idx=0)
        self.normalise = nn.BatchNorm1d(2, affine=False)
        self.drop = nn.Dropout()
        self.register_buffer("seen", torch.zeros(()))
        self.register_buffer("groups", torch.zeros(self.items))
        self._loss = loss

    def roles(self) -> dict[str, Role]:
        return {"rows": Role.ROWS, "user": Role.PRIVATE, "padded.weight": Role.ROWS}

    def loss(self, item: Tensor, label: Tensor) -> Tensor:
        return self._loss(self, item, label)

    def score(self) -> Tensor:
        return self.rows @ self.user


def logit(probe: Probe, item: Tensor) -> Tensor:
    """What a good loss starts from."""
    return (probe.rows[item] + probe.padded.weight[item]) @ probe.user


def good(probe: Probe, item: Tensor, label: Tensor) -> Tensor:
    """A loss that breaks no rule."""
    return bce(logit(probe, item), label)


def place(loss: Loss, marker: str = "# here") -> str:
    """The file and line of a loss that has the marker, as an error says it."""
    code = loss.__code__
    lines = Path(code.co_filename).read_text().splitlines()
    first = code.co_firstlineno
    number = next(n for n in range(first, len(lines) + 1) if marker in lines[n - 1])
    return f" at {code.co_filename}:{number}: "
