"""From a recommender to a bundle."""

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from export.bundle import Content, check_free, write_bundle
from export.errors import RecommenderError
from export.programs import STATIC_RUNTIMES, compile_programs
from export.recommender import Recommender, parameter_specs, parameter_values
from wire.bundle import Bundle
from wire.manifest import Capacity, ContextField, Optimizer
from wire.policy import CodecPolicy, TrainingPolicy

__all__ = ["ROW_CAPACITY", "build_bundle"]

ROW_CAPACITY = 1_024
"""Rows of a program with static shapes where nothing else is said: about 200 interactions, each
with four negatives of its own. More rows cost a device time in every step."""


def build_bundle(
    recommender: Recommender,
    *,
    out: str | PathLike[str],
    name: str | None = None,
    optimizer: Optimizer = Optimizer.SGD,
    runtimes: Sequence[str] = ("onnx",),
    row_capacity: int = ROW_CAPACITY,
    training: TrainingPolicy | None = None,
    codec: CodecPolicy | None = None,
    row_requests: bool = False,
    overwrite: bool = False,
) -> Bundle:
    """Compile a recommender and write its bundle.

    The values of its parameters become version 0. Equal arguments give equal bytes, so the same
    task, whenever and wherever they are built with the same versions of PyTorch and onnx.

    Args:
        recommender: the model; it is not changed.
        out: folder to write; it appears at once and complete.
        name: what people call the task; the recommender's kind if none is given.
        optimizer: of the local update, compiled into the programs.
        runtimes: ``onnx``, ``executorch``, ``ort-training``: at least one.
        row_capacity: most item rows of one local update on a runtime with static shapes.
        training: the training policy to start with; the defaults of `TrainingPolicy` if None. Its
            batch size is the most that runtimes with static shapes ever take.
        codec: the codec policy to start with; the defaults of `CodecPolicy` if None.
        row_requests: whether devices may ask for single rows, see `Manifest.row_requests`.
        overwrite: whether an earlier bundle in ``out`` may be replaced.

    Raises:
        RecommenderError: the recommender breaks a rule, or cannot be exported.
        ExportError: ``out`` is taken, or a runtime cannot be had.
        ManifestError: a name or a shape that the manifest does not allow.
    """
    folder = Path(out)
    # Refused before the seconds of compiling, not after.
    check_free(folder, overwrite=overwrite)
    training = training if training is not None else TrainingPolicy()
    specs, values = parameter_specs(recommender), parameter_values(recommender)
    capacity = Capacity(row_capacity, training.batch_size)
    programs, files = compile_programs(recommender, optimizer, runtimes, capacity)
    content = Content(
        name=name if name is not None else recommender.kind,
        recommender=recommender.kind,
        items=recommender.items,
        batch=recommender.batch,
        context=tuple(ContextField(*field) for field in recommender.context.items()),
        history=recommender.history,
        parameters=specs,
        values={name: _array(name, value) for name, value in values.items()},
        optimizer=optimizer,
        capacity=capacity if STATIC_RUNTIMES.intersection(runtimes) else None,
        programs=programs,
        files=files,
        training=training,
        codec=codec if codec is not None else CodecPolicy(),
        row_requests=row_requests,
    )
    return write_bundle(content, folder, overwrite=overwrite)


def _array(name: str, tensor: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    if not bool(torch.isfinite(tensor).all()):
        raise RecommenderError(f"parameter {name!r} starts with values that are not finite")
    return tensor.contiguous().numpy()
