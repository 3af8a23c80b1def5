"""Unbiased rounding: the mean of what is decoded is the delta."""

import numpy as np
import pytest

from tests.wire.strategies import random_delta, specs_of
from wire.codec import decode_delta, encode_delta
from wire.delta import RowBlock, Tensor
from wire.errors import PolicyError
from wire.policy import CodecMode, CodecPolicy

TRIALS = 800


def dense(delta: dict[str, Tensor], catalogue: int) -> np.ndarray:
    block = delta["item"]
    assert isinstance(block, RowBlock)
    table = np.zeros((catalogue, block.values.shape[1]))
    table[block.rows] = block.values
    return np.concatenate([table.ravel(), np.asarray(delta["head"]).ravel()])


@pytest.mark.parametrize(
    ("mode", "density", "bits", "row_scales"),
    [
        (CodecMode.ROWS, 1.0, 1, False),
        (CodecMode.ROWS, 1.0, 4, True),
        (CodecMode.RANDOM_ROWS, 0.3, 1, True),
        (CodecMode.RANDOM_ROWS, 0.3, 4, False),
        (CodecMode.RANDOM_ENTRIES, 0.3, 2, False),
    ],
)
def test_the_mean_is_the_delta(
    mode: CodecMode, density: float, bits: int, row_scales: bool
) -> None:
    specs, delta = specs_of(14, 3), random_delta(2, 14, 3, 6)
    policy = CodecPolicy(
        mode=mode,
        bits=bits,
        density=density,
        row_scales=row_scales,
        unbiased=True,
        residual_keep=0.0,
    )
    rng = np.random.default_rng(1)
    found = np.array(
        [
            dense(decode_delta(encode_delta(delta, specs, policy, rng), specs), 14)
            for _ in range(TRIALS)
        ]
    )
    truth = dense(delta, 14)
    # Standard errors from the trials themselves; 54 entries, so 4.5 of them is a rare event.
    errors = np.abs(found.mean(axis=0) - truth)
    spread = found.std(axis=0) / np.sqrt(TRIALS)
    assert (errors <= 4.5 * spread + 1e-6 * np.abs(truth).max()).all()
    assert (found.std(axis=0)[truth != 0] > 0).any()


@pytest.mark.parametrize(
    "values",
    [
        {"mode": CodecMode.TOP_K, "residual_keep": 0.0},
        {"mode": CodecMode.AUTO, "residual_keep": 0.0},
        {"mode": CodecMode.ROWS, "density": 0.5, "residual_keep": 0.0},
        {"mode": CodecMode.ROWS, "density": 1.0, "residual_keep": 0.9},
    ],
)
def test_unbiased_rounding_is_refused_where_it_cannot_be(values: dict[str, object]) -> None:
    with pytest.raises(PolicyError, match=r"codec\.(unbiased|residual_keep)"):
        CodecPolicy(unbiased=True, **values)  # type: ignore[arg-type]
