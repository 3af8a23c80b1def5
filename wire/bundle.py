"""A bundle on disk: the manifest and the files it names."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from wire.errors import BundleError
from wire.manifest import FileEntry, Manifest, task_id

__all__ = ["MANIFEST_FILE", "Bundle", "file_digest", "read_bundle"]

MANIFEST_FILE = "manifest.json"


@dataclass(frozen=True, slots=True)
class Bundle:
    """A checked bundle.

    Attributes:
        root: its folder.
        manifest: the parsed manifest.
        raw_manifest: the manifest's bytes, whose digest names the task.
        task: 32 hex characters.
    """

    root: Path
    manifest: Manifest
    raw_manifest: bytes
    task: str

    def path(self, entry: FileEntry) -> Path:
        """Where a file of the bundle lies."""
        return self.root / entry.path


def read_bundle(root: Path) -> Bundle:
    """Read a bundle and check every file's size and digest.

    Raises:
        BundleError: a file is missing, or differs from what the manifest says.
        ManifestError: the manifest itself is not valid.
    """
    try:
        raw = (root / MANIFEST_FILE).read_bytes()
    except OSError as error:
        raise BundleError(f"{root} is not a bundle: {error.strerror}: {MANIFEST_FILE}") from None
    bundle = Bundle(root, Manifest.from_json(raw), raw, task_id(raw))
    for entry in bundle.manifest.files:
        _check_file(bundle.path(entry), entry)
    return bundle


def file_digest(path: Path) -> str:
    """SHA-256 of a file in lower-case hex, read in portions."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_file(path: Path, entry: FileEntry) -> None:
    try:
        size = path.stat().st_size
    except OSError:
        raise BundleError(f"{entry.path} is missing from the bundle") from None
    if size != entry.size_bytes:
        raise BundleError(f"{entry.path} has {size} bytes; the manifest says {entry.size_bytes}")
    if file_digest(path) != entry.sha256:
        raise BundleError(f"{entry.path} was changed: its digest is not the manifest's")
