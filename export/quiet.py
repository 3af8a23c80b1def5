"""Silence for PyTorch's own noise, so that warnings stay errors for everything else."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["quiet_torch"]

_CHATTY_LOGGER = "torch.onnx._internal.exporter._registration"


@contextmanager
def quiet_torch() -> Iterator[None]:
    """Hide what PyTorch 2.13 says while it exports and what nobody can act on.

    That is: its own use of a name it deprecated, its note that inputs share a dimension, and its
    hints that torchvision's operators are not there to be converted.
    """
    logger = logging.getLogger(_CHATTY_LOGGER)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning
            )
            warnings.filterwarnings("ignore", r"# The axis name: \w+ will not be used", UserWarning)
            yield
    finally:
        logger.setLevel(level)
