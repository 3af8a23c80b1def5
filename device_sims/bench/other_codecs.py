"""What others would send of a block of rows, to stand beside what our codec sends.

The compressors are in the extra `dev`; one that is not there is left out of a comparison.
"""

import json
from collections.abc import Iterable
from importlib import import_module
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from wire.codec.forms import Factors, Form, Scaled
from wire.codec.levels import Levels
from wire.delta import RowBlock

__all__ = ["as_blosc", "as_json", "as_top_k", "as_zstd", "range_coded"]

ZSTD_LEVEL = 19


def as_json(block: RowBlock) -> bytes:
    """The rows by their numbers, in decimal."""
    rows = dict(zip(block.rows.tolist(), block.values.tolist(), strict=True))
    return json.dumps(rows, separators=(",", ":")).encode()


def as_top_k(block: RowBlock, nmse: float) -> bytes:
    """An int32 position and a float32 for each of the largest entries, few enough for an error."""
    width = block.values.shape[1]
    places = (block.rows[:, None] * width + np.arange(width)).ravel()
    energies = np.square(block.values.ravel(), dtype=np.float64)
    order = np.argsort(-energies)
    lost = 1.0 - np.cumsum(energies[order]) / energies.sum()
    kept = np.sort(order[: 1 + int(np.searchsorted(-lost, -nmse))])
    positions, values = places[kept].astype("<i4"), block.values.ravel()[kept].astype("<f4")
    return bytes(positions.tobytes() + values.tobytes())


def as_zstd(raw: bytes) -> bytes | None:
    """Bytes through zstd at a high level."""
    zstandard = _module("zstandard")
    if zstandard is None:
        return None
    return bytes(zstandard.ZstdCompressor(ZSTD_LEVEL).compress(raw))


def as_blosc(block: RowBlock) -> bytes | None:
    """The rows as float32 through Blosc2: bytes of equal weight side by side, then zstd."""
    blosc2 = _module("blosc2")
    if blosc2 is None:
        return None
    packed: bytes = blosc2.compress2(
        np.ascontiguousarray(block.values), typesize=4, codec=blosc2.Codec.ZSTD, clevel=9
    )
    return packed


def range_coded(form: Form, rows: NDArray[np.bool_]) -> bytes | None:
    """The same quantised block by a range coder that knows all frequencies without being told them.

    Args:
        form: a quantised form of all rows that it has.
        rows: bool [table rows], which those are.
    """
    constriction = _module("constriction")
    if constriction is None:
        return None
    encoder = constriction.stream.queue.RangeEncoder()
    for symbols in (rows, *_symbols(form)):
        counts = np.bincount(symbols.astype(np.int64).ravel())
        if np.count_nonzero(counts) > 1:
            shares = (counts / counts.sum()).astype(np.float64)
            model = constriction.stream.model.Categorical(shares, perfect=False)
            encoder.encode(symbols.astype(np.int32).ravel(), model)
    words: NDArray[np.uint32] = encoder.get_compressed()
    return words.tobytes()


def _symbols(form: Form) -> Iterable[NDArray[np.generic]]:
    match form:
        case Levels():
            return form.kept, form.negative, form.codes
        case Scaled():
            return form.scales, *_symbols(form.levels)
        case Factors():
            return *_symbols(form.right), *_symbols(form.left)
        case _:
            raise ValueError(f"{type(form).__name__} is not quantised")


def _module(name: str) -> ModuleType | None:
    try:
        return import_module(name)
    except ImportError:
        return None
