"""A version's parameters as a file: written and read back."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from aggregator.blobs import Blobs
from wire.delta import FloatArray
from wire.errors import BundleError
from wire.manifest import ParameterSpec
from wire.parameters import map_parameters

__all__ = ["encode_snapshot", "load_snapshot", "read_snapshot"]


def encode_snapshot(parameters: Mapping[str, FloatArray]) -> bytes:
    """Safetensors bytes; the same parameters give the same bytes, so the same digest."""
    return save({name: np.ascontiguousarray(parameters[name]) for name in sorted(parameters)})


def read_snapshot(path: Path, specs: Sequence[ParameterSpec]) -> dict[str, FloatArray]:
    """The federated parameters in a safetensors file, in memory.

    Raises:
        BundleError: one is missing, has another shape, or is not finite; or the file is damaged.
    """
    found = map_parameters(path)
    parameters = {}
    for spec in specs:
        if spec.name not in found:
            raise BundleError(f"{path.name} lacks the parameter {spec.name}")
        array = np.array(found[spec.name], np.float32)
        if array.shape != spec.shape:
            raise BundleError(
                f"{spec.name} has shape {list(array.shape)}; the manifest says {list(spec.shape)}"
            )
        if not np.isfinite(array).all():
            raise BundleError(f"{spec.name} holds NaN or infinity")
        parameters[spec.name] = array
    return parameters


def load_snapshot(
    blobs: Blobs, sha256: str, specs: Sequence[ParameterSpec]
) -> dict[str, FloatArray] | None:
    """A stored snapshot, or None when it is not here any more or was damaged."""
    return read_snapshot(blobs.path(sha256), specs) if blobs.intact(sha256) else None
