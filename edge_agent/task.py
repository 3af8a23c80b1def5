"""A task as one device sees it: the checked manifest, loaded programs, mapped parameters."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypeVar
from weakref import WeakValueDictionary

import numpy as np

from edge_agent.downloads import BlobSource
from edge_agent.durable_state import DurableState
from edge_agent.errors import PermanentDownloadError, TransientDownloadError
from edge_agent.runtimes.protocol import Program, ProgramFile, Runtime
from wire.delta import FloatArray
from wire.errors import BundleError
from wire.manifest import FileEntry, Manifest, ParameterSpec
from wire.parameters import Table, map_parameters, map_scoring_parameters

__all__ = ["LocalTask", "known_manifest", "map_checked", "map_for_scoring", "open_task"]

T = TypeVar("T", bound=Table)

_mapped_now: WeakValueDictionary[tuple[object, ...], FloatArray] = WeakValueDictionary()
"""What some agent of this process has mapped, by file and parameter. While it is there, its inode
is not given to another file."""


@dataclass(frozen=True, slots=True)
class LocalTask:
    """A task that is ready to train and to score.

    Attributes:
        id: 32 hex characters.
        manifest: checked.
        program: trains.
        scorer: scores candidates.
        initial_private: where the device's private parameters start.
        frozen: the frozen parameters, mapped and read only.
        received_bytes: what had to come over the network to open it.
    """

    id: str
    manifest: Manifest
    program: Program
    scorer: Program
    initial_private: Mapping[str, FloatArray]
    frozen: Mapping[str, FloatArray]
    received_bytes: int


def open_task(task: str, *, store: DurableState, source: BlobSource, runtime: Runtime) -> LocalTask:
    """Open a task, downloading what the device does not have yet.

    Raises:
        DownloadError: a file is missing and cannot be had.
        ProgramError: there is no program for this runtime, or the runtime refuses it.
        WireError: the manifest or a file of the bundle is not valid.
    """
    raw = store.manifest(task)
    new = raw is None
    if raw is None:
        raw = source.manifest(task)
    manifest = _manifest(raw)
    parts = manifest.program(runtime.name)
    shared = private, frozen = manifest.file(manifest.private), manifest.file(manifest.frozen)
    files = {part: _fetch(entry, source) for part, entry in parts.items()}
    opened = LocalTask(
        id=task,
        manifest=manifest,
        program=runtime.open_update(manifest, files),
        scorer=runtime.open_scorer(manifest, files),
        initial_private=_copied(_parameters(private, manifest.private_parameters, source)),
        frozen=_parameters(frozen, manifest.frozen_parameters, source),
        received_bytes=_size(raw, (*parts.values(), *shared)) if new else 0,
    )
    if new:
        store.keep_manifest(task, raw)
    return opened


@lru_cache(maxsize=2)
def _manifest(raw: bytes) -> Manifest:
    """Checked once for all agents of a process, which take part in the same task."""
    return Manifest.from_json(raw)


def map_checked(path: Path, specs: Sequence[ParameterSpec]) -> dict[str, FloatArray]:
    """Map a parameter file that must hold at least the given parameters in their shapes.

    Agents of one process that use the same file share one mapping of it.

    Raises:
        TransientDownloadError: the file has gone since it was downloaded.
        PermanentDownloadError: it is not a file of these parameters.
    """
    try:
        stat = path.stat()
    except OSError as error:
        raise _unreadable(path, error) from None
    file = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)
    found = {spec.name: _mapped_now.get((*file, spec)) for spec in specs}
    shared = {name: values for name, values in found.items() if values is not None}
    if len(shared) == len(specs):
        return shared
    mapped = _mapped(map_parameters, path, specs)
    # As plain arrays: whatever is taken from a map costs several times as much.
    plain = {name: values.view(np.ndarray) for name, values in mapped.items()}
    _mapped_now.update({(*file, spec): plain[spec.name] for spec in specs})
    return plain


def map_for_scoring(path: Path, specs: Sequence[ParameterSpec]) -> dict[str, Table]:
    """The same of a file whose tables may be int8."""
    return _mapped(map_scoring_parameters, path, specs)


def _mapped(
    read: Callable[[Path], Mapping[str, T]], path: Path, specs: Sequence[ParameterSpec]
) -> dict[str, T]:
    try:
        mapped = read(path)
    except BundleError as error:
        raise PermanentDownloadError(str(error)) from None
    except OSError as error:
        raise _unreadable(path, error) from None
    for spec in specs:
        if spec.name not in mapped or mapped[spec.name].shape != spec.shape:
            raise PermanentDownloadError(
                f"{path.name} lacks {spec.name} in the manifest's shape {list(spec.shape)}"
            )
    return {spec.name: mapped[spec.name] for spec in specs}


def _unreadable(path: Path, error: OSError) -> TransientDownloadError:
    return TransientDownloadError(f"cannot read {path.name}: {error.strerror}")


def _fetch(entry: FileEntry, source: BlobSource) -> ProgramFile:
    return ProgramFile(source.file(entry.sha256, entry.size_bytes), entry.sha256)


def _parameters(
    entry: FileEntry, specs: Sequence[ParameterSpec], source: BlobSource
) -> dict[str, FloatArray]:
    if not specs:
        return {}
    return map_checked(source.file(entry.sha256, entry.size_bytes), specs)


def _copied(mapped: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
    return {name: np.array(value) for name, value in mapped.items()}


def _size(raw: bytes, files: Iterable[FileEntry]) -> int:
    return len(raw) + sum({file.sha256: file.size_bytes for file in files}.values())


def known_manifest(store: DurableState, task: str | None) -> Manifest | None:
    """The manifest of a task (None: the adopted one), if it was downloaded before."""
    task = task or store.get("task")
    raw = store.manifest(task) if task else None
    return Manifest.from_json(raw) if raw else None
