"""Compile a PyTorch recommender into a bundle of training programs that run on a device.

    from export import RECOMMENDERS, build_bundle

    bundle = build_bundle(RECOMMENDERS["mf"](items=3_706, dimension=32), out="bundle")

A model of one's own goes the same way; `export.recommender` says what it must be.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from export.build import build_bundle
    from export.recommenders import RECOMMENDERS

__all__ = ["RECOMMENDERS", "build_bundle"]

_HOMES = {"RECOMMENDERS": "export.recommenders", "build_bundle": "export.build"}


def __getattr__(name: str) -> Any:
    # On demand, because PyTorch takes seconds to load and most of the command does without it.
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
