"""PyTorch's list of what it can convert to ONNX, read once instead of for every program.

Reading it is a third of the time that a small program takes; what comes of it is the same.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import pytest

__all__ = ["listed_once"]


@contextmanager
def listed_once() -> Iterator[None]:
    """While it is open, PyTorch keeps the list."""
    # What it imports from is made by hand, and no type checker sees it.
    from torch.onnx._internal._lazy_import import onnxscript_apis  # type: ignore[attr-defined]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnxscript_apis, "get_torchlib_ops", cache(onnxscript_apis.get_torchlib_ops))
        yield
