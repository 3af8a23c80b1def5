"""Checks of what the recommenders are built from, and tensors made of it."""

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from export.errors import RecommenderError
from wire.manifest import MAX_ELEMENTS

__all__ = [
    "Features",
    "check_above_zero",
    "check_at_least",
    "check_choice",
    "check_table",
    "context_offsets",
    "feature_table",
]

Features = NDArray[Any] | Tensor
"""Content of the items: numbers [items, F], one row an item."""


def check_at_least(least: int, **arguments: float) -> None:
    """Refuse arguments below ``least``, infinite or NaN.

    Raises:
        RecommenderError: names the argument.
    """
    for name, value in arguments.items():
        # The last bound is what a random generator takes as its seed; it is no limit to the rest.
        if not least <= value < 1 << 63:
            raise RecommenderError(f"{name} is {value}; expected at least {least}, below 2**63")


def check_above_zero(**arguments: float) -> None:
    """Refuse arguments that are not finite numbers above 0.

    Raises:
        RecommenderError: names the argument.
    """
    for name, value in arguments.items():
        if not 0.0 < value < math.inf:
            raise RecommenderError(f"{name} is {value}; expected a finite number above 0")


def check_choice(choices: Sequence[str], **arguments: str) -> None:
    """Refuse arguments that are none of the choices.

    Raises:
        RecommenderError: names the argument.
    """
    for name, value in arguments.items():
        if value not in choices:
            raise RecommenderError(f"{name} is {value!r}; expected one of {', '.join(choices)}")


def check_table(items: int, width: int) -> None:
    """Refuse an item table that no manifest could describe.

    Raises:
        RecommenderError: there are no items, or too many numbers.
    """
    check_at_least(1, items=items)
    if items * width > MAX_ELEMENTS:
        raise RecommenderError(
            f"items is {items} and a row has {width} numbers; expected at most {MAX_ELEMENTS} "
            "numbers in all"
        )


def feature_table(items: int, features: Features) -> Tensor:
    """The content of the items as float32 [items, F]: a copy.

    Raises:
        RecommenderError: it has another shape, or numbers that are not finite.
    """
    check_at_least(1, items=items)
    table = torch.as_tensor(features).to(torch.float32, copy=True).contiguous()
    if table.ndim != 2 or table.shape[0] != items or table.shape[1] < 1:
        raise RecommenderError(
            f"features have the shape {list(table.shape)}; expected [{items}, F]: one row for "
            "each item"
        )
    check_table(items, table.shape[1])
    if not bool(torch.isfinite(table).all()):
        raise RecommenderError("features hold numbers that are not finite; replace them")
    return table


def context_offsets(context: Mapping[str, int]) -> Tensor:
    """Where the values of each field start in a table of all fields' values: int64 [fields].

    Raises:
        RecommenderError: a field has no values.
    """
    for name, size in context.items():
        check_at_least(1, **{f"context[{name!r}]": size})
    return torch.tensor([0, *accumulate(context.values())][:-1], dtype=torch.int64)
