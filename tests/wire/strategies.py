"""Random deltas for the codec's laws."""

import numpy as np
from hypothesis import strategies as st

from wire.delta import RowBlock, Tensor
from wire.manifest import ParameterSpec, Role
from wire.policy import CodecMode, CodecPolicy

__all__ = ["deltas", "policies", "random_delta", "specs_of"]


def random_delta(seed: int, catalogue: int, width: int, touched: int) -> dict[str, Tensor]:
    """A table of which some rows are touched, and a dense block; uneven row norms."""
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.choice(catalogue, touched, replace=False)).astype(np.int64)
    values = rng.normal(size=(touched, width)) * rng.lognormal(size=(touched, 1))
    dense = rng.normal(size=(3, 4))
    return {
        "item": RowBlock(rows, values.astype(np.float32)),
        "head": dense.astype(np.float32),
    }


def specs_of(catalogue: int, width: int) -> tuple[ParameterSpec, ...]:
    return (
        ParameterSpec("item", Role.ROWS, (catalogue, width)),
        ParameterSpec("head", Role.DENSE, (3, 4)),
    )


@st.composite
def deltas(
    draw: st.DrawFn,
) -> tuple[dict[str, Tensor], tuple[ParameterSpec, ...]]:
    catalogue = draw(st.integers(1, 300))
    width = draw(st.integers(1, 12))
    touched = draw(st.integers(0, catalogue))
    seed = draw(st.integers(0, 2**32 - 1))
    return random_delta(seed, catalogue, width, touched), specs_of(catalogue, width)


@st.composite
def policies(draw: st.DrawFn) -> CodecPolicy:
    mode = draw(st.sampled_from(CodecMode))
    return CodecPolicy(
        mode=mode,
        bits=draw(st.sampled_from((2, 4, 8) if mode is CodecMode.LOW_RANK else (1, 2, 4, 8))),
        density=draw(st.floats(0.01, 1.0)),
        rank=draw(st.integers(1, 4)),
    )
