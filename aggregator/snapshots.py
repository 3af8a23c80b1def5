"""A version as a file: its parameters, and what its rule remembers, written and read back."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from aggregator.blobs import Blobs
from aggregator.merging import ServerState
from wire.errors import BundleError
from wire.manifest import ParameterSpec

__all__ = ["encode_snapshot", "load_snapshot", "read_snapshot"]

MEMORY = "memory/"
"""Before the names of what the rule remembers; no parameter's name has a slash."""


def encode_snapshot(state: ServerState) -> bytes:
    """Safetensors bytes; the same state gives the same bytes, so the same digest."""
    arrays = {**state.parameters, **{MEMORY + name: a for name, a in state.memory.items()}}
    return save({name: np.ascontiguousarray(arrays[name]) for name in sorted(arrays)})


def read_snapshot(path: Path, specs: Sequence[ParameterSpec], version: int) -> ServerState:
    """A version out of its file, in arrays of its own.

    Args:
        path: a safetensors file.
        specs: the federated parameters.
        version: which one it is.

    Raises:
        BundleError: a parameter is missing, has another shape or type, or is not finite; or the
            file is damaged.
    """
    try:
        with safe_open(path, framework="np") as file:
            found = {name: np.array(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise BundleError(f"{path.name} is not a safetensors file: {error}") from None
    for spec in specs:
        if spec.name not in found:
            raise BundleError(f"{path.name} lacks the parameter {spec.name}")
        array = found[spec.name]
        if array.shape != spec.shape or array.dtype != np.float32:
            raise BundleError(
                f"{spec.name} is {array.dtype} of shape {list(array.shape)}; the manifest says "
                f"float32 of {list(spec.shape)}"
            )
        if not np.isfinite(array).all():
            raise BundleError(f"{spec.name} holds NaN or infinity")
    memory = {n.removeprefix(MEMORY): a for n, a in found.items() if n.startswith(MEMORY)}
    return ServerState(version, {spec.name: found[spec.name] for spec in specs}, memory)


def load_snapshot(
    blobs: Blobs, sha256: str, specs: Sequence[ParameterSpec], version: int
) -> ServerState | None:
    """A stored snapshot, or None when it is not here any more or was damaged."""
    return read_snapshot(blobs.path(sha256), specs, version) if blobs.intact(sha256) else None
