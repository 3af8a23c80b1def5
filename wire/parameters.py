"""Read-only views of parameter files.

The files are safetensors, written by the library of that name. A device maps them and gathers the
rows it needs: the library would read a whole table, and a device must not pay for the catalogue.
"""

import json
import math
from pathlib import Path

import numpy as np

from wire.checks import Fields
from wire.errors import BundleError

__all__ = ["ParameterMap", "map_parameters"]

MAX_HEADER_BYTES = 1 << 20
MAX_FILE_BYTES = 1 << 40

FloatMap = np.memmap[tuple[int, ...], np.dtype[np.float32]]
ParameterMap = dict[str, FloatMap]


def map_parameters(path: Path) -> ParameterMap:
    """Map every float32 tensor of a safetensors file, without reading them.

    Returns:
        For each name a read-only array backed by the file.

    Raises:
        BundleError: the file is truncated, not safetensors, or holds something else than float32.
        OSError: it cannot be read.
    """
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
    return {name: _map(path, 8 + length, name, entry) for name, entry in header.items()}


def _map(path: Path, start: int, name: str, entry: object) -> FloatMap:
    fields = Fields(entry, where=f"{path.name}.{name}", error=BundleError)
    fields.choice("dtype", ("F32",))
    shape, offsets = fields.array("shape", 8), fields.array("data_offsets", 2)
    numbers = (*shape, *offsets)
    if not all(type(n) is int and 0 <= n <= MAX_FILE_BYTES for n in numbers) or len(offsets) != 2:
        raise fields.refusal("shape", shape, f"integers from 0 to {MAX_FILE_BYTES}")
    first, last = offsets
    if last - first != 4 * math.prod(shape) or start + last > path.stat().st_size:
        raise BundleError(f"{path.name} is truncated: {name} does not fit")
    return np.memmap(path, np.dtype("<f4"), "r", start + first, tuple(shape))
