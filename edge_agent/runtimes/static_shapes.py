"""What runtimes with static shapes have in common: filling up to the capacity, and the clip.

Filling changes no result. A row of zeros that no sample names has no gradient, so no optimiser
moves it; a sample of weight 0 adds nothing to the objective.
"""

import math
from collections.abc import Collection, Mapping

import numpy as np

from edge_agent.errors import ProgramError
from edge_agent.runtimes.protocol import Array
from wire.delta import FloatArray
from wire.manifest import Capacity

__all__ = ["clip_delta", "cut_tables", "fill_batches", "fill_tables"]

POSITIONS = frozenset({"item", "positive", "negative", "history"})
"""The batch inputs that name rows of the tables."""


def fill_tables(
    inputs: Mapping[str, Array], tables: Collection[str], capacity: Capacity
) -> tuple[dict[str, Array], int | None]:
    """Fill tables with rows of zeros.

    Args:
        inputs: arrays by name; the others come back as they are.
        tables: which of them are tables [R, width].
        capacity: what the program holds.

    Returns:
        The inputs with tables [capacity.rows, width], and R; None where there are no tables.

    Raises:
        ProgramError: the tables differ in their number of rows, or have more than the capacity.
    """
    counts = {name: len(inputs[name]) for name in tables}
    if not counts:
        return dict(inputs), None
    rows = max(counts.values())
    if len(set(counts.values())) > 1:
        raise ProgramError(f"the tables have different numbers of rows: {counts}")
    if rows > capacity.rows:
        raise ProgramError(f"the tables have {rows} rows; the program holds {capacity.rows}")
    filled = {name: _fill(inputs[name], 0, capacity.rows) for name in tables}
    return {**inputs, **filled}, rows


def fill_batches(
    inputs: Mapping[str, Array], batches: Collection[str], capacity: Capacity, rows: int | None
) -> dict[str, Array]:
    """Fill batches with samples of zeros, so of weight 0.

    Args:
        inputs: arrays by name; the others come back as they are.
        batches: which of them are batches [S, B] or [S, B, width], ``weight`` among them.
        capacity: what the program holds.
        rows: R, how many rows the tables had before they were filled; None: there are no tables.

    Returns:
        The inputs with batches [S, capacity.batch] and [S, capacity.batch, width].

    Raises:
        ProgramError: the batches differ in S or B, B is more than the capacity, or a position is
            none of the rows: past them it would train what fills the tables.
    """
    extents = {name: inputs[name].shape[:2] for name in batches}
    extent = inputs["weight"].shape
    if len(extent) != 2 or set(extents.values()) != {extent}:
        raise ProgramError(f"the batches have different numbers of steps or samples: {extents}")
    if extent[1] > capacity.batch:
        raise ProgramError(f"a step has {extent[1]} samples; the program holds {capacity.batch}")
    for name in POSITIONS.intersection(batches) if rows is not None else ():
        positions = inputs[name]
        if positions.size and not 0 <= positions.min() <= positions.max() < rows:
            raise ProgramError(
                f"{name} has positions from {positions.min()} to {positions.max()}; "
                f"the tables have {rows} rows"
            )
    return {**inputs, **{name: _fill(inputs[name], 1, capacity.batch) for name in batches}}


def cut_tables(
    outputs: Mapping[str, Array], tables: Collection[str], rows: int | None
) -> dict[str, Array]:
    """The outputs with what filled the tables cut off: [capacity.rows, width] to [R, width].

    Args:
        outputs: arrays by name; the others come back as they are.
        tables: which of them are tables; those that are no outputs are ignored.
        rows: R, as ``fill_tables`` gave it.
    """
    return {name: value[:rows] if name in tables else value for name, value in outputs.items()}


def clip_delta(
    start: Mapping[str, FloatArray], new: Mapping[str, FloatArray], clip: float
) -> dict[str, FloatArray]:
    """Scale a delta that is too long down to the norm ``clip``.

    Args:
        start: the federated parameters before the update, float32, by name.
        new: the same after it.
        clip: largest L2 norm of new - start over all parameters together; infinity for none.

    Returns:
        The parameters to go on with; ``new`` itself, to the bit, where the delta is not too long.
        What is not finite stays so.
    """
    # In float64, whose squares do not overflow and whose sum is not off by rounding.
    deltas = {name: new[name].astype(np.float64) - value for name, value in start.items()}
    norm = math.sqrt(sum(float(np.square(delta).sum()) for delta in deltas.values()))
    if norm <= clip:
        return dict(new)
    with np.errstate(invalid="ignore"):
        scaled = {name: start[name] + delta * (clip / norm) for name, delta in deltas.items()}
    return {name: value.astype(np.float32) for name, value in scaled.items()}


def _fill(array: Array, axis: int, size: int) -> Array:
    missing = size - array.shape[axis]
    if not missing:
        return np.ascontiguousarray(array)
    widths = [(0, missing if at == axis else 0) for at in range(array.ndim)]
    return np.pad(array, widths)
