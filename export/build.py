"""From a recommender to a bundle."""

from os import PathLike
from pathlib import Path

import numpy as np
import torch

from export.bundle import Content, check_free, write_bundle
from export.errors import RecommenderError
from export.onnx_graph import to_bytes
from export.recommender import Recommender, parameter_specs
from export.recommenders.mf import LOSSES
from export.scorer import scorer_program
from export.training_graph import training_program
from wire.bundle import Bundle
from wire.policy import CodecPolicy, TrainingPolicy

__all__ = ["build_bundle", "build_mf"]


def build_bundle(
    recommender: Recommender,
    *,
    out: str | PathLike[str],
    name: str | None = None,
    training: TrainingPolicy | None = None,
    codec: CodecPolicy | None = None,
    overwrite: bool = False,
) -> Bundle:
    """Compile a recommender and write its bundle.

    The values of its parameters become version 0. Equal arguments give equal bytes, so the same
    task, whenever and wherever they are built with the same versions of PyTorch and onnx.

    Args:
        recommender: the model; it is not changed.
        out: folder to write; it appears at once and complete.
        name: what people call the task; the recommender's kind if none is given.
        training: the training policy to start with; the defaults of `TrainingPolicy` if None.
        codec: the codec policy to start with; the defaults of `CodecPolicy` if None.
        overwrite: whether an earlier bundle in ``out`` may be replaced.

    Raises:
        RecommenderError: the recommender breaks a rule, or cannot be exported.
        ExportError: ``out`` is taken.
        ManifestError: a name or a shape that the manifest does not allow.
    """
    folder = Path(out)
    # Refused before the seconds of compiling, not after.
    check_free(folder, overwrite=overwrite)
    specs = parameter_specs(recommender)
    content = Content(
        name=name if name is not None else recommender.kind,
        recommender=recommender.kind,
        items=recommender.items,
        batch=recommender.batch,
        parameters=specs,
        values={spec.name: _values(recommender, spec.name) for spec in specs},
        update=to_bytes(training_program(recommender)),
        scorer=to_bytes(scorer_program(recommender)),
        training=training if training is not None else TrainingPolicy(),
        codec=codec if codec is not None else CodecPolicy(),
    )
    return write_bundle(content, folder, overwrite=overwrite)


def build_mf(
    *,
    items: int,
    out: str | PathLike[str],
    dimension: int = 32,
    loss: str = "bce",
    bias: bool = False,
    l2: float = 0.01,
    item_spread: float = 0.03,
    user_spread: float = 0.1,
    seed: int = 0,
    name: str | None = None,
    training: TrainingPolicy | None = None,
    codec: CodecPolicy | None = None,
    overwrite: bool = False,
) -> Bundle:
    """Build a bundle for matrix factorisation; see `MatrixFactorisation` and `build_bundle`.

    Args:
        items: size of the catalogue, at least 1.
        out: as in `build_bundle`.
        dimension: length of the user's vector, at least 1.
        loss: ``bce`` (labelled items) or ``bpr`` (pairs of a preferred and another item).
        bias: whether an item has a bias.
        l2: strength of the penalty on the user's vector, at least 0.
        item_spread: standard deviation of the initial item rows, above 0.
        user_spread: standard deviation of the initial user vector, above 0.
        seed: of the initial parameters, 0 to 2**63 - 1.
        name: as in `build_bundle`.
        training: as in `build_bundle`.
        codec: as in `build_bundle`.
        overwrite: as in `build_bundle`.

    Raises:
        RecommenderError: an argument is out of range.
        ExportError: ``out`` is taken.
    """
    if loss not in LOSSES:
        raise RecommenderError(f"loss is {loss!r}; expected one of {', '.join(LOSSES)}")
    recommender = LOSSES[loss](
        items=items,
        dimension=dimension,
        bias=bias,
        l2=l2,
        item_spread=item_spread,
        user_spread=user_spread,
        seed=seed,
    )
    return build_bundle(
        recommender, out=out, name=name, training=training, codec=codec, overwrite=overwrite
    )


def _values(
    recommender: Recommender, name: str
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    values = recommender.get_parameter(name).detach().contiguous()
    if not bool(torch.isfinite(values).all()):
        raise RecommenderError(f"parameter {name!r} starts with values that are not finite")
    return values.numpy()
