"""Write a bundle: all of it or nothing, and the same bytes for the same content."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from export.errors import ExportError
from wire.bundle import MANIFEST_FILE, Bundle, file_digest, read_bundle
from wire.manifest import (
    BatchKind,
    Capacity,
    ContextField,
    FileEntry,
    Manifest,
    Optimizer,
    ParameterSpec,
    Role,
)
from wire.policy import CodecPolicy, TrainingPolicy

__all__ = ["Content", "check_free", "write_bundle"]

INITIAL_FILE = "parameters.safetensors"
PRIVATE_FILE = "private.safetensors"
FROZEN_FILE = "frozen.safetensors"


@dataclass(frozen=True, kw_only=True)
class Content:
    """What goes into a bundle.

    Attributes:
        name: what people call the task.
        recommender: the kind of model, for example ``mf``.
        items: size of the catalogue.
        batch: what a training sample is.
        context: what is known of each interaction beside its item and time.
        history: how many interactions before a sample the recommender sees.
        parameters: the parameters, in the order of tensors on the wire.
        values: their start, float32, by name.
        optimizer: which one is compiled into the programs.
        capacity: of the programs with static shapes, if there are any.
        programs: for each runtime the paths of its files, by part.
        files: the content of those files, by path.
        training: the training policy to start with.
        codec: the codec policy to start with.
        row_requests: whether devices may ask for single rows.
    """

    name: str
    recommender: str
    items: int
    batch: BatchKind
    context: tuple[ContextField, ...] = ()
    history: int = 0
    parameters: tuple[ParameterSpec, ...]
    values: Mapping[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]
    optimizer: Optimizer = Optimizer.SGD
    capacity: Capacity | None = None
    programs: Mapping[str, Mapping[str, str]]
    files: Mapping[str, bytes]
    training: TrainingPolicy
    codec: CodecPolicy
    row_requests: bool = False


def write_bundle(content: Content, out: Path, *, overwrite: bool = False) -> Bundle:
    """Write a bundle into a new folder, checked before anyone can see it.

    Args:
        content: what to write.
        out: the folder; it must not exist, or be empty.
        overwrite: replace an earlier bundle there. A folder that is no bundle is never replaced.

    Raises:
        ExportError: ``out`` is taken.
        ManifestError: the content does not make a valid manifest.
        OSError: it cannot be written; nothing is left behind.
    """
    check_free(out, overwrite=overwrite)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as scratch:
        fresh = Path(scratch) / "bundle"
        _write_files(content, fresh)
        bundle = read_bundle(fresh)
        if out.exists():
            out.rename(Path(scratch) / "replaced")
        fresh.rename(out)
    return replace(bundle, root=out)


def check_free(out: Path, *, overwrite: bool) -> None:
    """Raise ExportError unless a bundle may be written to ``out``."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not (out / MANIFEST_FILE).is_file():
        raise ExportError(f"{out} exists and is not a bundle; choose another folder")
    if not overwrite:
        raise ExportError(f"{out} already holds a bundle; choose another folder or overwrite it")


def _write_files(content: Content, root: Path) -> None:
    for path, raw in content.files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(raw)
    _save(content, root / INITIAL_FILE, {Role.DENSE, Role.ROWS})
    _save(content, root / PRIVATE_FILE, {Role.PRIVATE})
    _save(content, root / FROZEN_FILE, {Role.FROZEN, Role.FROZEN_ROWS})
    (root / MANIFEST_FILE).write_bytes(_manifest(content, root).to_json())


def _save(content: Content, path: Path, roles: set[Role]) -> None:
    names = sorted(spec.name for spec in content.parameters if spec.role in roles)
    save_file({name: content.values[name] for name in names}, path)


def _manifest(content: Content, root: Path) -> Manifest:
    paths = (*content.files, INITIAL_FILE, PRIVATE_FILE, FROZEN_FILE)
    return Manifest(
        name=content.name,
        recommender=content.recommender,
        items=content.items,
        batch=content.batch,
        context=content.context,
        history=content.history,
        parameters=content.parameters,
        optimizer=content.optimizer,
        capacity=content.capacity,
        programs=content.programs,
        initial=INITIAL_FILE,
        private=PRIVATE_FILE,
        frozen=FROZEN_FILE,
        files=tuple(_entry(root, path) for path in paths),
        row_requests=content.row_requests,
        training=content.training,
        codec=content.codec,
    )


def _entry(root: Path, path: str) -> FileEntry:
    return FileEntry(path, file_digest(root / path), (root / path).stat().st_size)
