"""A task as one device sees it: the checked manifest, loaded programs, mapped parameters."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_agent.downloads import BlobSource
from edge_agent.errors import PermanentDownloadError, ProgramError, TransientDownloadError
from edge_agent.runtimes.protocol import Program, Runtime
from edge_agent.store import Store
from wire.delta import FloatArray
from wire.errors import BundleError
from wire.manifest import FileEntry, Manifest, ParameterSpec
from wire.parameters import map_parameters

__all__ = ["LocalTask", "known_catalogue", "map_checked", "open_task"]


@dataclass(frozen=True, slots=True)
class LocalTask:
    """A task that is ready to train and to score.

    Attributes:
        id: 32 hex characters.
        manifest: checked.
        program: trains.
        scorer: scores candidates.
        initial_private: where the device's private parameters start.
        received_bytes: what had to come over the network to open it.
    """

    id: str
    manifest: Manifest
    program: Program
    scorer: Program
    initial_private: Mapping[str, FloatArray]
    received_bytes: int


def open_task(task: str, *, store: Store, source: BlobSource, runtime: Runtime) -> LocalTask:
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
    manifest = Manifest.from_json(raw)
    if runtime.name not in manifest.programs:
        available = ", ".join(manifest.programs)
        raise ProgramError(
            f"the task {manifest.name!r} has no program for the runtime {runtime.name!r}; "
            f"it has {available}"
        )
    paths = (manifest.programs[runtime.name], manifest.scorer, manifest.private)
    files = program, scorer, private = [manifest.file(path) for path in paths]
    opened = LocalTask(
        id=task,
        manifest=manifest,
        program=_load(program, source, runtime),
        scorer=_load(scorer, source, runtime),
        initial_private=_initial(private, manifest, source),
        received_bytes=len(raw) + sum(file.size_bytes for file in files) if new else 0,
    )
    if new:
        store.keep_manifest(task, raw)
    return opened


def map_checked(path: Path, specs: Sequence[ParameterSpec]) -> dict[str, FloatArray]:
    """Map a parameter file that must hold at least the given parameters in their shapes.

    Raises:
        TransientDownloadError: the file has gone since it was downloaded.
        PermanentDownloadError: it is not a file of these parameters.
    """
    try:
        mapped = map_parameters(path)
    except BundleError as error:
        raise PermanentDownloadError(str(error)) from None
    except OSError as error:
        raise TransientDownloadError(f"cannot read {path.name}: {error.strerror}") from None
    for spec in specs:
        if spec.name not in mapped or mapped[spec.name].shape != spec.shape:
            raise PermanentDownloadError(
                f"{path.name} lacks {spec.name} in the manifest's shape {list(spec.shape)}"
            )
    return {spec.name: mapped[spec.name] for spec in specs}


def _load(entry: FileEntry, source: BlobSource, runtime: Runtime) -> Program:
    return runtime.load(source.file(entry.sha256, entry.size_bytes), entry.sha256)


def _initial(entry: FileEntry, manifest: Manifest, source: BlobSource) -> dict[str, FloatArray]:
    if not manifest.private_parameters:
        return {}
    path = source.file(entry.sha256, entry.size_bytes)
    mapped = map_checked(path, manifest.private_parameters)
    return {name: np.array(value) for name, value in mapped.items()}


def known_catalogue(store: Store, task: str | None) -> int | None:
    """Number of items of a task (None: the adopted one), if its manifest was downloaded before."""
    task = task or store.get("task")
    raw = store.manifest(task) if task else None
    return Manifest.from_json(raw).items if raw else None
