"""Compile a PyTorch recommender into a bundle of training programs that run on a device.

    from export import build_mf

    bundle = build_mf(items=3_706, dimension=32, loss="bce", out="bundle")

A model of one's own goes through `export.build_bundle`; `export.recommender` says what it must be.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from export.build import build_bundle, build_mf

__all__ = ["build_bundle", "build_mf"]


def __getattr__(name: str) -> Any:
    # On demand, because PyTorch takes seconds to load and most of the command does without it.
    if name in __all__:
        return getattr(import_module("export.build"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
