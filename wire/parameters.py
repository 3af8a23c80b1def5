"""Parameter files: read-only views of them, and the one way to write a shared state.

The files are safetensors. A device maps them and gathers the rows it needs: the library of that
name would read a whole table, and a device must not pay for the catalogue. A shared state is known
by the digest of its file, which a device makes itself out of an older one, so ``write_parameters``
fixes every byte of it.

For scoring alone a table can be shipped as int8 with a scale for each row, at about a quarter of
the size: an I8 tensor under the table's name, and an F32 vector under that name and ``.scale``.
"""

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import EllipsisType
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from wire.checks import Fields
from wire.delta import FloatArray
from wire.errors import BundleError
from wire.manifest import ParameterSpec

__all__ = [
    "Int8Table",
    "ParameterMap",
    "Table",
    "map_parameters",
    "map_scoring_parameters",
    "parameters_header",
    "quantise_rows",
    "write_parameters",
]

LARGEST_CODE = 127
SCALE_SUFFIX = ".scale"
TYPES: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "I8": np.dtype("i1")}
MAX_HEADER_BYTES = 1 << 20
MAX_FILE_BYTES = 1 << 40
ZEROS_BYTES = 1 << 20

FloatMap = np.memmap[tuple[int, ...], np.dtype[np.float32]]
ParameterMap = dict[str, FloatMap]
Mode = Literal["r", "r+"]


@dataclass(frozen=True, slots=True)
class Int8Table:
    """A table that is float32 wherever it is looked at.

    Attributes:
        codes: int8 [rows, width].
        scales: float32 [rows]; a row is its codes times its scale.
    """

    codes: NDArray[np.int8]
    scales: FloatArray

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows and width."""
        return self.codes.shape

    def __getitem__(self, rows: NDArray[np.int64] | EllipsisType) -> FloatArray:
        """Some rows: float32 [n, width]."""
        return np.multiply(self.codes[rows], self.scales[rows][:, None], dtype=np.float32)

    def tensors(self, name: str) -> dict[str, NDArray[Any]]:
        """As the tensors of a file."""
        return {name: self.codes, name + SCALE_SUFFIX: self.scales}


class Table(Protocol):
    """Float32 values by row, wherever they are: an array, a mapped file, int8 with scales."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows and width, or the shape of a dense parameter."""

    def __getitem__(self, rows: Any, /) -> FloatArray:
        """Some rows, int64 [n] in any order; or with ``...`` all there is."""


def quantise_rows(table: FloatArray) -> Int8Table:
    """Round each row of float32 [rows, width] to 255 levels, up to its largest magnitude.

    No entry is off by more than half of its row's scale, a 254th of that magnitude.
    """
    scales = np.abs(table).max(axis=1, initial=0.0).astype(np.float64) / LARGEST_CODE
    codes = np.rint(table / np.where(scales > 0.0, scales, 1.0)[:, None])
    return Int8Table(codes.astype(np.int8), scales.astype(np.float32))


def map_parameters(path: Path, *, writable: bool = False) -> ParameterMap:
    """Map every float32 tensor of a safetensors file, without reading them.

    Args:
        path: the file.
        writable: what is written to the arrays goes to the file.

    Returns:
        For each name an array backed by the file.

    Raises:
        BundleError: the file is truncated, not safetensors, or holds something else than float32.
        OSError: it cannot be read.
    """
    return _tensors(path, ("F32",), "r+" if writable else "r")


def map_scoring_parameters(path: Path) -> dict[str, Table]:
    """Map the tensors of a file that may hold int8 tables, without reading them.

    Raises:
        BundleError: the file is truncated, not safetensors, or a table lacks its scales.
        OSError: it cannot be read.
    """
    found = _tensors(path, tuple(TYPES))
    quantised = [name for name, value in found.items() if value.dtype == np.int8]
    scales = {name: found.pop(name + SCALE_SUFFIX, None) for name in quantised}
    return {
        name: _int8_table(path, name, value, scales[name]) if name in scales else value
        for name, value in found.items()
    }


def parameters_header(specs: Iterable[ParameterSpec]) -> bytes:
    """What a file of float32 tensors begins with.

    The length, and compact JSON with the names in order, filled up with spaces to a multiple of
    eight bytes. The tensors follow in the same order, little-endian, without gaps.
    """
    ordered = _in_order(specs)
    starts = _starts(ordered).tolist()
    header = {
        spec.name: {"dtype": "F32", "shape": spec.shape, "data_offsets": starts[at : at + 2]}
        for at, spec in enumerate(ordered)
    }
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)
    return len(raw).to_bytes(8, "little") + raw


@contextmanager
def write_parameters(path: Path, specs: Iterable[ParameterSpec]) -> Iterator[ParameterMap]:
    """Make a file of float32 tensors, all zero, and map it to be written to.

    Equal specs and values give equal bytes: ``parameters_header``, then the tensors in the order of
    their names. What was written is in the file when the block ends.

    Raises:
        OSError: it cannot be written.
    """
    ordered, header = _in_order(specs), parameters_header(specs)
    starts = len(header) + _starts(ordered)
    with path.open("wb") as file:
        file.write(header)
        # Not a hole: to write to the map of one ends the process by a signal when the disk is full.
        for first in range(len(header), starts[-1], ZEROS_BYTES):
            file.write(bytes(min(ZEROS_BYTES, starts[-1] - first)))
    mapped: ParameterMap = {
        spec.name: np.memmap(path, "<f4", "r+", int(start), spec.shape)
        for spec, start in zip(ordered, starts[:-1], strict=True)
    }
    yield mapped
    for tensor in mapped.values():
        tensor.flush()


def _in_order(specs: Iterable[ParameterSpec]) -> list[ParameterSpec]:
    return sorted(specs, key=lambda spec: spec.name)


def _starts(ordered: Sequence[ParameterSpec]) -> NDArray[np.int64]:
    """Where each tensor begins after the header, in bytes, and where the last one ends."""
    return np.cumsum([0, *(4 * spec.size for spec in ordered)])


def _int8_table(path: Path, name: str, codes: Any, scales: Any) -> Int8Table:
    fits = scales is not None and scales.dtype == np.float32
    if not fits or codes.ndim != 2 or scales.shape != codes.shape[:1]:
        raise BundleError(f"{path.name} has {name} as int8 without a float32 scale for each row")
    return Int8Table(codes, scales)


def _tensors(path: Path, types: tuple[str, ...], mode: Mode = "r") -> dict[str, Any]:
    with path.open("rb") as file:
        prefix = file.read(8)
        length = int.from_bytes(prefix, "little")
        if len(prefix) != 8 or length > MAX_HEADER_BYTES:
            raise BundleError(f"{path.name} is not a safetensors file")
        raw = file.read(length)
    try:
        header = json.loads(raw)
    except (ValueError, RecursionError):
        raise BundleError(f"{path.name} has a damaged safetensors header") from None
    if not isinstance(header, dict):
        raise BundleError(f"{path.name} has a damaged safetensors header")
    header.pop("__metadata__", None)
    start = 8 + length
    return {name: _map(path, start, name, entry, types, mode) for name, entry in header.items()}


def _map(
    path: Path, start: int, name: str, entry: object, types: tuple[str, ...], mode: Mode
) -> Any:
    fields = Fields(entry, where=f"{path.name}.{name}", error=BundleError)
    dtype = TYPES[fields.choice("dtype", types)]
    shape, offsets = fields.array("shape", 8), fields.array("data_offsets", 2)
    numbers = (*shape, *offsets)
    if not all(type(n) is int and 0 <= n <= MAX_FILE_BYTES for n in numbers) or len(offsets) != 2:
        raise fields.refusal("shape", shape, f"integers from 0 to {MAX_FILE_BYTES}")
    first, last = offsets
    if last - first != dtype.itemsize * math.prod(shape) or start + last > path.stat().st_size:
        raise BundleError(f"{path.name} is truncated: {name} does not fit")
    return np.memmap(path, dtype, mode, start + first, tuple(shape))
