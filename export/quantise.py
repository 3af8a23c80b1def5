"""Parameters for scoring alone: tables as int8 with a scale for each row."""

from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from safetensors.numpy import save_file

from wire.bundle import Bundle
from wire.errors import BundleError
from wire.parameters import map_parameters, quantise_rows

__all__ = ["quantise"]


def quantise(bundle: Bundle, parameters: Path | None, out: Path) -> int:
    """Write the shared parameters of a version with their tables as int8.

    Args:
        bundle: the task.
        parameters: the version, as the aggregator serves it; None for the bundle's initial one.
        out: the file to write; one that is there is replaced at once, when the new one is whole.

    Returns:
        The file's size in bytes.

    Raises:
        BundleError: ``parameters`` is no version of this task.
        OSError: a file cannot be read or written.
    """
    manifest = bundle.manifest
    source = parameters or bundle.path(manifest.file(manifest.initial))
    version = map_parameters(source)
    frozen = map_parameters(bundle.path(manifest.file(manifest.frozen)))
    tensors: dict[str, NDArray[Any]] = {}
    for spec in (*manifest.federated, *manifest.frozen_parameters):
        value = (version if spec in manifest.federated else frozen).get(spec.name)
        if value is None or value.shape != spec.shape:
            raise BundleError(f"{source} lacks {spec.name} in the shape {list(spec.shape)}")
        tensors.update(
            quantise_rows(value).tensors(spec.name) if spec.is_table else {spec.name: value}
        )
    unfinished = out.with_name(out.name + ".new")
    save_file(tensors, unfinished)
    unfinished.replace(out)
    return out.stat().st_size
