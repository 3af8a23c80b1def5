"""The manifest: what a bundle holds, and by its digest the name of the task."""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any, Self, TypeVar

from wire.checks import Fields
from wire.errors import ManifestError, PolicyError
from wire.policy import CodecPolicy, TrainingPolicy

__all__ = [
    "FORMAT_VERSION",
    "BatchKind",
    "Capacity",
    "ContextField",
    "FileEntry",
    "Manifest",
    "Optimizer",
    "ParameterSpec",
    "Role",
    "task_id",
]

FORMAT_VERSION = 1
TASK_ID_BYTES = 16
MAX_MANIFEST_BYTES = 1 << 20
MAX_PARAMETERS = 256
MAX_FILES = 64
MAX_CONTEXT_FIELDS = 64
MAX_HISTORY = 1_024
MAX_CAPACITY = 1 << 20
MAX_ELEMENTS = 1 << 31
MAX_FILE_BYTES = 1 << 40
P = TypeVar("P", TrainingPolicy, CodecPolicy)
_PATH = re.compile(r"[a-zA-Z0-9_-][a-zA-Z0-9_.-]*(/[a-zA-Z0-9_-][a-zA-Z0-9_.-]*)*")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,99}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class Role(StrEnum):
    """Who trains a parameter, who may see it, and in which portions it travels.

    ``dense`` and ``rows`` are trained by all devices together, ``rows`` being a table of which an
    update sends the touched rows only. ``private`` is trained and never leaves the device.
    ``frozen`` and ``frozen-rows`` come with the bundle and are never trained and never sent; of
    ``frozen-rows``, one row an item, a device reads only the rows that it needs.
    """

    DENSE = "dense"
    ROWS = "rows"
    PRIVATE = "private"
    FROZEN = "frozen"
    FROZEN_ROWS = "frozen-rows"


class BatchKind(StrEnum):
    """What one training sample is.

    A labelled item; a preferred and another item; or a window of consecutive actions, each with the
    one that followed it and another item.
    """

    POINTWISE = "pointwise"
    PAIRWISE = "pairwise"
    SEQUENCE = "sequence"


class Optimizer(StrEnum):
    """What turns gradients into steps; its state starts at zero in each local update."""

    SGD = "sgd"
    MOMENTUM = "momentum"
    ADAGRAD = "adagrad"
    ADAM = "adam"


@dataclass(frozen=True, slots=True)
class ContextField:
    """One categorical fact about an interaction, as an id from 0 (not known) to size - 1."""

    name: str
    size: int


@dataclass(frozen=True, slots=True)
class Capacity:
    """What a program with static shapes holds at most: table rows, and samples a step."""

    rows: int
    batch: int


@dataclass(frozen=True, slots=True)
class ParameterSpec:
    """One float32 parameter.

    Attributes:
        name: unique in the manifest, and the parameter's input name in the programs.
        role: ``rows`` and ``frozen-rows`` parameters are tables of shape (catalogue, width).
        shape: the full shape; each dimension at least 1.
    """

    name: str
    role: Role
    shape: tuple[int, ...]

    @property
    def is_table(self) -> bool:
        """Whether it has a row for each item, of which a program sees only some."""
        return self.role in (Role.ROWS, Role.FROZEN_ROWS)

    @property
    def size(self) -> int:
        """Number of elements."""
        size = 1
        for dimension in self.shape:
            size *= dimension
        return size


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file of the bundle: its path in the bundle, its SHA-256 in hex, its size in bytes."""

    path: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Everything a device and an aggregator must know of a task.

    Attributes:
        name: what people call the task.
        recommender: the kind of model, for example ``mf``.
        items: size of the catalogue; item ids are 0 to items - 1.
        batch: what a training sample is.
        context: what is known of each interaction beside its item and time.
        history: how many interactions before a sample the recommender sees; 0 for none.
        parameters: every parameter; their order is the order of tensors on the wire.
        optimizer: which one is compiled into the programs.
        capacity: of the programs with static shapes; None where there is none.
        programs: for each runtime the paths of the files that it needs, by part.
        initial: path of the safetensors file with version 0 of the federated parameters.
        private: path of the safetensors file with the start of the private parameters.
        frozen: path of the safetensors file with the frozen parameters.
        files: every file of the bundle except the manifest.
        row_requests: whether a device may ask the aggregator for the rows that it needs. That is
            fewer bytes where the catalogue is large, and tells the aggregator which items they are.
        training: the training policy to start with.
        codec: the codec policy to start with.
    """

    name: str
    recommender: str
    items: int
    batch: BatchKind
    context: tuple[ContextField, ...] = ()
    history: int = 0
    parameters: tuple[ParameterSpec, ...]
    optimizer: Optimizer = Optimizer.SGD
    capacity: Capacity | None = None
    programs: Mapping[str, Mapping[str, str]]
    initial: str
    private: str
    frozen: str
    files: tuple[FileEntry, ...]
    row_requests: bool = False
    training: TrainingPolicy
    codec: CodecPolicy

    @cached_property
    def federated(self) -> tuple[ParameterSpec, ...]:
        """The parameters that travel (dense and rows), in wire order."""
        return tuple(spec for spec in self.parameters if spec.role in (Role.DENSE, Role.ROWS))

    @cached_property
    def private_parameters(self) -> tuple[ParameterSpec, ...]:
        """The parameters that never leave the device."""
        return tuple(spec for spec in self.parameters if spec.role is Role.PRIVATE)

    @cached_property
    def frozen_parameters(self) -> tuple[ParameterSpec, ...]:
        """The parameters that nobody trains."""
        frozen = (Role.FROZEN, Role.FROZEN_ROWS)
        return tuple(spec for spec in self.parameters if spec.role in frozen)

    @property
    def dense_bytes(self) -> int:
        """Bytes of all federated parameters as float32: what an uncompressed update costs."""
        return 4 * sum(spec.size for spec in self.federated)

    def program(self, runtime: str) -> dict[str, FileEntry]:
        """The files of one runtime, by part.

        Raises:
            ManifestError: the bundle has no program for it.
        """
        if runtime not in self.programs:
            available = ", ".join(self.programs)
            raise ManifestError(
                f"the task {self.name!r} has no program for the runtime {runtime!r}; it has "
                f"{available}"
            )
        return {part: self.file(path) for part, path in self.programs[runtime].items()}

    def file(self, path: str) -> FileEntry:
        """The entry of one file.

        Raises:
            ManifestError: no such file in the bundle.
        """
        for entry in self.files:
            if entry.path == path:
                return entry
        raise ManifestError(f"manifest.files has no entry for {path!r}")

    def to_json(self) -> bytes:
        """The canonical bytes: equal manifests give equal bytes, so equal task names."""
        document: dict[str, Any] = {
            "format": FORMAT_VERSION,
            "name": self.name,
            "recommender": self.recommender,
            "items": self.items,
            "batch": self.batch.value,
            "context": [{"name": c.name, "size": c.size} for c in self.context],
            "history": self.history,
            "parameters": [
                {"name": p.name, "role": p.role.value, "shape": list(p.shape)}
                for p in self.parameters
            ],
            "optimizer": self.optimizer.value,
            "capacity": self.capacity and asdict(self.capacity),
            "programs": {runtime: dict(parts) for runtime, parts in self.programs.items()},
            "initial": self.initial,
            "private": self.private,
            "frozen": self.frozen,
            "files": [
                {"path": f.path, "sha256": f.sha256, "size_bytes": f.size_bytes} for f in self.files
            ],
            "training": self.training.to_dict(),
            "codec": self.codec.to_dict(),
        }
        # Agents of before it was there know no such key; what is not allowed need not be said.
        if self.row_requests:
            document["row_requests"] = True
        return json.dumps(document, indent=1, sort_keys=True).encode() + b"\n"

    @classmethod
    def from_json(cls, raw: bytes) -> Self:
        """Parse and check a manifest.

        Raises:
            ManifestError: names the field, what stands there and what was expected.
        """
        if len(raw) > MAX_MANIFEST_BYTES:
            raise ManifestError(f"manifest has {len(raw)} bytes; at most {MAX_MANIFEST_BYTES}")
        try:
            document = json.loads(raw)
        except (ValueError, RecursionError) as error:
            raise ManifestError(f"manifest is not JSON: {error}") from None
        fields = Fields(document, where="manifest", error=ManifestError)
        version = fields.take("format")
        if version != FORMAT_VERSION:
            raise fields.refusal("format", version, f"{FORMAT_VERSION}; update this software")
        manifest = cls(
            name=fields.text("name"),
            recommender=fields.text("recommender"),
            items=fields.integer("items", 1, MAX_ELEMENTS),
            batch=BatchKind(fields.choice("batch", tuple(BatchKind))),
            context=_context(fields.array("context", MAX_CONTEXT_FIELDS)),
            history=fields.integer("history", 0, MAX_HISTORY),
            parameters=_parameters(fields.array("parameters", MAX_PARAMETERS)),
            optimizer=Optimizer(fields.choice("optimizer", tuple(Optimizer))),
            capacity=_capacity(fields.take("capacity")),
            programs=_programs(fields.take("programs")),
            initial=fields.text("initial"),
            private=fields.text("private"),
            frozen=fields.text("frozen"),
            files=_files(fields.array("files", MAX_FILES)),
            row_requests="row_requests" in document and fields.boolean("row_requests"),
            training=_policy(TrainingPolicy.from_dict, fields.take("training")),
            codec=_policy(CodecPolicy.from_dict, fields.take("codec")),
        )
        fields.done()
        manifest._check()
        return manifest

    def _check(self) -> None:
        names = [spec.name for spec in self.parameters]
        if len(set(names)) != len(names):
            raise ManifestError("manifest.parameters has a name twice")
        if not self.federated:
            raise ManifestError("manifest.parameters has nothing to federate (dense or rows)")
        for spec in self.parameters:
            if spec.is_table and (len(spec.shape) != 2 or spec.shape[0] != self.items):
                raise ManifestError(
                    f"manifest.parameters.{spec.name}.shape is {list(spec.shape)}; "
                    f"expected [{self.items}, width] for the role {spec.role}"
                )
        self._check_batch()
        paths = [entry.path for entry in self.files]
        if len(set(paths)) != len(paths):
            raise ManifestError("manifest.files has a path twice")
        programs = (path for parts in self.programs.values() for path in parts.values())
        for path in (*programs, self.initial, self.private, self.frozen):
            self.file(path)

    def _check_batch(self) -> None:
        fields = [field.name for field in self.context]
        if len(set(fields)) != len(fields):
            raise ManifestError("manifest.context has a name twice")
        if self.batch is BatchKind.SEQUENCE and not self.history:
            raise ManifestError("manifest.history is 0; expected at least 1 for the batch sequence")
        if self.batch is BatchKind.SEQUENCE and self.context:
            raise ManifestError("manifest.context has fields; expected none for the batch sequence")


def task_id(raw_manifest: bytes) -> str:
    """The name of a task: the first 16 bytes of its manifest's SHA-256, as 32 hex characters."""
    return hashlib.sha256(raw_manifest).digest()[:TASK_ID_BYTES].hex()


def _policy(parse: Callable[[object], P], values: object) -> P:
    try:
        return parse(values)
    except PolicyError as error:
        raise ManifestError(f"manifest.{error}") from None


def _parameters(entries: list[Any]) -> tuple[ParameterSpec, ...]:
    return tuple(_parameter(entry, at) for at, entry in enumerate(entries))


def _parameter(entry: object, at: int) -> ParameterSpec:
    fields = Fields(entry, where=f"manifest.parameters[{at}]", error=ManifestError)
    name, shape = fields.text("name"), fields.array("shape", 8)
    role = Role(fields.choice("role", tuple(Role)))
    fields.done()
    if not _NAME.fullmatch(name):
        raise fields.refusal("name", name, "letters, digits, '_', '.' and '-'")
    if not shape or not all(type(n) is int and 1 <= n <= MAX_ELEMENTS for n in shape):
        raise fields.refusal("shape", shape, f"a list of integers from 1 to {MAX_ELEMENTS}")
    spec = ParameterSpec(name, role, tuple(shape))
    if spec.size > MAX_ELEMENTS:
        raise fields.refusal("shape", shape, f"at most {MAX_ELEMENTS} elements")
    return spec


def _context(entries: list[Any]) -> tuple[ContextField, ...]:
    return tuple(_context_field(entry, at) for at, entry in enumerate(entries))


def _context_field(entry: object, at: int) -> ContextField:
    fields = Fields(entry, where=f"manifest.context[{at}]", error=ManifestError)
    field = ContextField(fields.text("name"), fields.integer("size", 1, MAX_ELEMENTS))
    fields.done()
    if not _NAME.fullmatch(field.name):
        raise fields.refusal("name", field.name, "letters, digits, '_', '.' and '-'")
    return field


def _capacity(entry: object) -> Capacity | None:
    if entry is None:
        return None
    fields = Fields(entry, where="manifest.capacity", error=ManifestError)
    rows, batch = (fields.integer(name, 1, MAX_CAPACITY) for name in ("rows", "batch"))
    fields.done()
    return Capacity(rows, batch)


def _programs(programs: object) -> dict[str, dict[str, str]]:
    return {
        runtime: _texts(parts, f"manifest.programs.{runtime}")
        for runtime, parts in _entries(programs, "manifest.programs").items()
    }


def _texts(parts: object, where: str) -> dict[str, str]:
    fields = Fields(parts, where=where, error=ManifestError)
    return {part: fields.text(part) for part in _entries(parts, where)}


def _entries(value: object, where: str) -> dict[str, Any]:
    fields = Fields(value, where=where, error=ManifestError)
    if not isinstance(value, Mapping) or not value:
        raise fields.refusal("", value, "at least one entry")
    return {str(key): entry for key, entry in value.items()}


def _files(entries: list[Any]) -> tuple[FileEntry, ...]:
    files = []
    for at, entry in enumerate(entries):
        fields = Fields(entry, where=f"manifest.files[{at}]", error=ManifestError)
        path, sha256 = fields.text("path"), fields.text("sha256")
        size_bytes = fields.integer("size_bytes", 0, MAX_FILE_BYTES)
        fields.done()
        # A path is joined to a folder on the device: it must not be able to leave it.
        if not _PATH.fullmatch(path):
            raise fields.refusal("path", path, "a relative path inside the bundle")
        if not _SHA256.fullmatch(sha256):
            raise fields.refusal("sha256", sha256, "64 lower-case hex characters")
        files.append(FileEntry(path, sha256, size_bytes))
    return tuple(files)
