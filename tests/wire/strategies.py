"""Random deltas and codec policies for laws."""

import numpy as np
from hypothesis import strategies as st

from wire.delta import RowBlock, Tensor
from wire.manifest import ParameterSpec, Role
from wire.policy import CodecMode, CodecPolicy

__all__ = ["Case", "deltas", "policies", "random_delta", "specs_of"]

Case = tuple[dict[str, Tensor], tuple[ParameterSpec, ...]]

DRAWN = (CodecMode.RANDOM_ENTRIES, CodecMode.RANDOM_ROWS)
EXACT = (CodecMode.RAW, CodecMode.HALF)


def random_delta(
    seed: int, catalogue: int, width: int, touched: int, *, rank: int | None = None
) -> dict[str, Tensor]:
    """A table of which some rows are touched, and a dense block; uneven row norms.

    Args:
        seed: of the numbers.
        catalogue: rows of the table.
        width: of a row.
        touched: how many rows are not zero.
        rank: of the table's rows, but for a little noise; None for full rank.
    """
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.choice(catalogue, touched, replace=False)).astype(np.int64)
    values = rng.normal(size=(touched, width))
    if rank is not None:
        values = rng.normal(size=(touched, rank)) @ rng.normal(size=(rank, width)) + 0.01 * values
    values = values * rng.lognormal(size=(touched, 1))
    return {
        "item": RowBlock(rows, values.astype(np.float32)),
        "head": rng.normal(size=(3, 4)).astype(np.float32),
    }


def specs_of(catalogue: int, width: int) -> tuple[ParameterSpec, ...]:
    return (
        ParameterSpec("item", Role.ROWS, (catalogue, width)),
        ParameterSpec("head", Role.DENSE, (3, 4)),
    )


@st.composite
def deltas(draw: st.DrawFn) -> Case:
    """Of any shape and rank, and of any magnitude that float32 has."""
    catalogue = draw(st.integers(1, 300))
    width = draw(st.integers(1, 12))
    touched = draw(st.integers(0, catalogue))
    rank = draw(st.sampled_from((None, 1, 2)))
    delta = random_delta(draw(st.integers(0, 2**32 - 1)), catalogue, width, touched, rank=rank)
    scale = draw(st.sampled_from((1.0, 1e-3, 1e-30, 1e-42, 1e30, 3e36)))
    spike = draw(st.sampled_from((1.0, 1e6)))
    block = delta["item"]
    assert isinstance(block, RowBlock)
    values = block.values.astype(np.float64) * scale
    values[:1, :1] *= spike
    largest = float(np.finfo(np.float32).max)
    delta["item"] = RowBlock(block.rows, np.clip(values, -largest, largest).astype(np.float32))
    return delta, specs_of(catalogue, width)


@st.composite
def policies(draw: st.DrawFn, *, lossless: bool = True) -> CodecPolicy:
    """Every mode; without unbiased rounding, which loses more than the delta itself."""
    modes = [mode for mode in CodecMode if lossless or mode not in EXACT]
    mode = draw(st.sampled_from(modes))
    return CodecPolicy(
        mode=mode,
        nmse=draw(st.sampled_from((0.0, 1e-7, 0.001, 0.05, 0.3, 0.9))),
        bits=draw(st.sampled_from((2, 4, 8) if mode is CodecMode.LOW_RANK else (1, 2, 4, 8))),
        density=draw(st.floats(0.01, 1.0)),
        rank=draw(st.integers(1, 4)),
        row_scales=draw(st.booleans()),
    )
