"""Silence for PyTorch's own noise, so that warnings stay errors for everything else."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from io import StringIO

__all__ = ["quiet_torch"]

_CHATTY_LOGGERS = (
    "torch._subclasses.fake_tensor",
    "torch.fx.experimental.symbolic_shapes",
    "torch.onnx._internal.exporter._registration",
    "torch.utils._pytree",
    "torchao",
)
_WARNINGS = (
    (r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning),
    (r"# The axis name: \w+ will not be used", UserWarning),
    (r"Function .* kwarg value is None", UserWarning),
    ("", DeprecationWarning),
)


@contextmanager
def quiet_torch() -> Iterator[None]:
    """Hide what PyTorch 2.13 and ExecuTorch 1.5 say while they export and what nobody can act on.

    That is: their own uses of what is deprecated, notes on how they trace and plan, hints that
    operators of torchvision and kernels of torchao are not there, and the trace or the graph of an
    error that they raise as well. Whatever goes to standard error is hidden with them.
    """
    loggers = [logging.getLogger(name) for name in _CHATTY_LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stderr(StringIO()):
            for message, category in _WARNINGS:
                warnings.filterwarnings("ignore", message, category)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
