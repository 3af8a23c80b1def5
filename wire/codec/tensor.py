"""One tensor: the form of its block, which rows they are, and the block.

Every tensor is a matrix here: a table as it is, a dense parameter with one row for each leading
index. Its rows may be any of the matrix, or only some that a seed draws; or the seed draws single
entries, and each is a row of width 1.
"""

import math
from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from wire.codec.choice import form_for, multiples
from wire.codec.drawn import SEED_BITS, draw
from wire.codec.forms import Factors, Form, Half, Raw, Scaled
from wire.codec.index_set import read_index_set, write_index_set
from wire.codec.levels import Levels
from wire.codec.stream import Reader, Writer
from wire.delta import FloatArray, RowBlock, Tensor
from wire.errors import CodecError, NotFiniteError
from wire.manifest import ParameterSpec, Role
from wire.policy import CodecMode, CodecPolicy

__all__ = ["read_tensor", "write_multiples", "write_tensor"]

Rows = NDArray[np.int64]

FORM_BITS = 3
NOTHING = 0
FORMS: tuple[type[Form], ...] = (Raw, Half, Levels, Scaled, Factors)
"""With the numbers from 1. The two after them say that places are drawn; then a form follows."""

MAX_DRAWN = 1 << 20
"""At most so many places are drawn for a tensor."""
MAX_DRAWN_VALUES = 1 << 22
"""And rows of at most so many values: half of what a delta decodes to."""
SMALLEST = 2.0**-100
"""A tensor without a larger magnitude counts as zero, except in the raw forms."""


class Places(IntEnum):
    """Which rows a tensor can name. The drawn ones stand where a form would."""

    ROWS = 0
    DRAWN_ROWS = 6
    DRAWN_ENTRIES = 7


DRAWN = {
    CodecMode.RANDOM_ROWS: Places.DRAWN_ROWS,
    CodecMode.RANDOM_ENTRIES: Places.DRAWN_ENTRIES,
}


@dataclass(frozen=True, slots=True)
class Block:
    """The rows that can be sent of a tensor.

    Attributes:
        places: what they are rows of.
        seed: of drawn places, 0 to 2**32 - 1.
        universe: how many places there are.
        rows: int64 [n], increasing numbers of rows or entries of the tensor.
        values: float32 [n, width].
    """

    places: Places
    seed: int
    universe: int
    rows: Rows
    values: FloatArray


def write_tensor(
    writer: Writer,
    spec: ParameterSpec,
    tensor: Tensor | None,
    policy: CodecPolicy,
    rng: np.random.Generator,
    budget: int,
) -> tuple[Tensor, int]:
    """Write one tensor, None being zero; see encode_delta.

    Returns:
        What read_tensor gives for what was written, of the same budget.
    """
    rows, values = _as_matrix(tensor, spec)
    block = _block(rows, values, spec, policy, rng)
    form = _form(block, spec, policy, rng)
    if form is None:
        writer.number(NOTHING, FORM_BITS)
        return _as_tensor(_nothing(spec), spec, budget)
    # Of drawn places all are named, so that which of them the device touched is not.
    if block.places is Places.ROWS and not (policy.all_rows and spec.role is Role.ROWS):
        named = form.touched()
        block, form = replace(block, rows=block.rows[named]), form.of_rows(named)
    _write_block(writer, spec, block, form)
    return _as_tensor(replace(block, values=form.values()), spec, budget)


def write_multiples(
    writer: Writer, spec: ParameterSpec, tensor: Tensor | None, exponent: int
) -> None:
    """Write one tensor without loss; see encode_multiples."""
    rows, values = _as_matrix(tensor, spec)
    touched = values.any(axis=1)
    block = Block(Places.ROWS, 0, spec.shape[0], rows[touched], values[touched])
    if len(block.rows):
        _write_block(writer, spec, block, multiples(block.values, exponent))
    else:
        writer.number(NOTHING, FORM_BITS)


def read_tensor(reader: Reader, spec: ParameterSpec, budget: int) -> tuple[Tensor, int]:
    """Read one tensor; see decode_delta.

    Args:
        reader: where from.
        spec: the parameter.
        budget: how many values may be decoded.

    Returns:
        The tensor, and how much of the budget it took.
    """
    return _as_tensor(_read_block(reader, spec, budget), spec, budget)


def _write_block(writer: Writer, spec: ParameterSpec, block: Block, form: Form) -> None:
    """Write which rows a block has, and their form; of drawn places it has all."""
    numbers = block.rows
    if block.places is not Places.ROWS:
        writer.number(block.places, FORM_BITS)
        writer.number(block.seed, SEED_BITS)
        writer.count(block.universe, _shape(spec, block.places)[0])
        numbers = np.arange(block.universe)
    writer.number(1 + FORMS.index(type(form)), FORM_BITS)
    write_index_set(writer, numbers, block.universe)
    form.write(writer)


def _as_tensor(block: Block, spec: ParameterSpec, budget: int) -> tuple[Tensor, int]:
    """What a block is of the tensor, and how much of the budget it takes."""
    height, width = _shape(spec, Places.ROWS)
    rows, values = block.rows, block.values
    entries, at = rows, None
    if block.places is Places.DRAWN_ENTRIES:
        rows, at = np.unique(entries // width, return_inverse=True)
    spent = block.universe if block.places is not Places.ROWS else 0
    spent += spec.size if spec.role is Role.DENSE else len(rows) * width
    # Before the rows are made: a few bytes of entries can be in as many rows, of any width.
    if spent > budget:
        raise CodecError(f"delta of {spec.name} is too large to decode")
    if at is not None:
        drawn, values = values[:, 0], np.zeros((len(rows), width), np.float32)
        values[at, entries % width] = drawn
    if spec.role is Role.ROWS:
        return RowBlock(rows, values), spent
    dense = np.zeros((height, width), np.float32)
    dense[rows] = values
    return dense.reshape(spec.shape), spent


def _read_block(reader: Reader, spec: ParameterSpec, budget: int) -> Block:
    number = reader.number(FORM_BITS)
    places = Places(number) if number in tuple(DRAWN.values()) else Places.ROWS
    universe, width = _shape(spec, places)
    if number == NOTHING:
        return _nothing(spec)
    seed, drawn = 0, None
    if places is not Places.ROWS:
        seed, count = reader.number(SEED_BITS), reader.count(universe)
        if not 0 < count <= min(MAX_DRAWN, budget):
            raise CodecError(f"delta of {spec.name} draws {count} places of {universe}")
        drawn, _ = draw(seed, count, universe)
        universe, number = count, reader.number(FORM_BITS)
    if not 0 < number <= len(FORMS):
        raise CodecError(f"delta of {spec.name} has no form {number} here")
    rows = read_index_set(reader, universe, budget // width)
    if not len(rows):
        raise CodecError(f"delta of {spec.name} has a form for no rows")
    values = FORMS[number - 1].read(reader, len(rows), width).values()
    return Block(places, seed, universe, rows if drawn is None else drawn[rows], values)


def _nothing(spec: ParameterSpec) -> Block:
    """The block of a tensor that is zero."""
    width = _shape(spec, Places.ROWS)[1]
    return Block(Places.ROWS, 0, 0, np.zeros(0, np.int64), np.zeros((0, width), np.float32))


def _block(
    rows: Rows,
    values: FloatArray,
    spec: ParameterSpec,
    policy: CodecPolicy,
    rng: np.random.Generator,
) -> Block:
    places = DRAWN.get(policy.mode, Places.ROWS)
    universe = height = _shape(spec, places)[0]
    seed = 0
    if places is Places.DRAWN_ENTRIES:
        rows, values = _entries(rows, values)
    if places is not Places.ROWS:
        seed = int(rng.integers(1 << SEED_BITS))
        most = min(MAX_DRAWN, MAX_DRAWN_VALUES // values.shape[1])
        universe = min(math.ceil(policy.density * height), most)
        drawn, weights = draw(seed, universe, height)
        values = RowBlock(rows, values).at(drawn)
        if policy.unbiased:
            values *= weights[:, None].astype(np.float32)
        return Block(places, seed, universe, drawn, values)
    touched = values.any(axis=1)
    if not touched.all():
        rows, values = rows[touched], values[touched]
    return Block(places, seed, universe, rows, values)


def _form(
    block: Block, spec: ParameterSpec, policy: CodecPolicy, rng: np.random.Generator
) -> Form | None:
    """The form of a block, None where nothing would be sent."""
    largest = float(np.abs(block.values).max(initial=0.0))
    raw = policy.mode in (CodecMode.RAW, CodecMode.HALF)
    if largest < SMALLEST and not (raw and largest):
        return None
    form = form_for(
        block.values, policy, table=spec.role is Role.ROWS, universe=block.universe, rng=rng
    )
    return form if form.touched().any() else None


def _shape(spec: ParameterSpec, places: Places) -> tuple[int, int]:
    """Height and width of the matrix that the places are rows of."""
    if places is Places.DRAWN_ENTRIES:
        return spec.size, 1
    return spec.shape[0], math.prod(spec.shape[1:])


def _entries(rows: Rows, values: FloatArray) -> tuple[Rows, FloatArray]:
    """Each entry as a row of width 1."""
    width = values.shape[1]
    return (rows[:, None] * width + np.arange(width)).ravel(), values.reshape(-1, 1)


def _as_matrix(tensor: Tensor | None, spec: ParameterSpec) -> tuple[Rows, FloatArray]:
    height, width = _shape(spec, Places.ROWS)
    if tensor is None:
        return np.zeros(0, np.int64), np.zeros((0, width), np.float32)
    if isinstance(tensor, RowBlock) is not (spec.role is Role.ROWS):
        raise CodecError(f"delta of {spec.name} does not have the form of its role {spec.role}")
    if isinstance(tensor, RowBlock):
        rows, values = tensor.rows, tensor.values
        if values.shape != (len(rows), width):
            raise CodecError(f"delta of {spec.name} is {values.shape}; expected [n, {width}]")
        if len(rows) and not (rows[0] >= 0 and rows[-1] < height and (rows[1:] > rows[:-1]).all()):
            raise CodecError(f"delta of {spec.name} has rows that are not increasing in the table")
    else:
        if tensor.shape != spec.shape:
            raise CodecError(f"delta of {spec.name} is {tensor.shape}; expected {spec.shape}")
        rows, values = np.arange(height), tensor.reshape(height, width)
    if not np.isfinite(values).all():
        raise NotFiniteError(f"delta of {spec.name} is not finite")
    return rows, values
