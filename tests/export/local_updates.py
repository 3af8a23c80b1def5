"""Random local updates, and how far two results of one are apart."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.recommender import (
    Recommender,
    example_batch,
    local_copy,
    parameter_values,
    score_inputs,
)

__all__ = ["Arrays", "difference", "draw_situation", "draw_update"]

Arrays = Mapping[str, NDArray[Any]]
_SPREAD = 0.3


def draw_update(
    recommender: Recommender,
    *,
    rows: int,
    steps: int,
    samples: int,
    seed: int = 0,
    learning_rate: float = 0.1,
    proximal: float = 0.0,
    clip: float = np.inf,
) -> dict[str, NDArray[Any]]:
    """Every input of an update program; the last step has a sample of weight 0."""
    rng = np.random.default_rng(seed)
    values = parameter_values(local_copy(recommender, rows))
    every = example_batch(recommender, steps * samples, rows)
    order = rng.permutation(steps * samples)
    weight = rng.integers(1, 3, (steps, samples)).astype(np.float32)
    weight[-1, -1] = 0.0
    return {
        **{n: rng.normal(0, _SPREAD, v.shape).astype(np.float32) for n, v in values.items()},
        **{n: b.numpy()[order].reshape(steps, samples, *b.shape[1:]) for n, b in every.items()},
        "weight": weight,
        "learning_rate": np.array(learning_rate, np.float32),
        "proximal": np.array(proximal, np.float32),
        "clip": np.array(clip, np.float32),
    }


def draw_situation(recommender: Recommender, *, rows: int) -> dict[str, NDArray[Any]]:
    """What a scorer takes beside the parameters."""
    batch = example_batch(recommender, 1, rows)
    return {name: batch[name][0].numpy() for name in score_inputs(recommender)}


def difference(inputs: Arrays, outputs: Arrays, expected: Arrays) -> float:
    """Distance of a change of the parameters from the expected one, relative to its norm."""
    assert outputs.keys() == expected.keys()
    apart = moved = 0.0
    for new in expected.keys() - {"loss"}:
        assert outputs[new].shape == expected[new].shape
        assert outputs[new].dtype == np.float32
        right = expected[new].astype(np.float64)
        apart += float(np.square(outputs[new] - right).sum())
        moved += float(np.square(right - inputs[new.removesuffix(".new")]).sum())
    return float(np.sqrt(apart / moved)) if moved else float(np.sqrt(apart))
