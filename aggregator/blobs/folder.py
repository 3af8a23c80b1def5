"""A folder of immutable files, each named by its SHA-256."""

import hashlib
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from aggregator.blobs.names import checked, is_name
from aggregator.blobs.protocol import BlobError, Blobs, Upload

__all__ = ["FolderBlobs"]

FORGOTTEN_S = 3600.0


class FolderBlobs(Blobs):
    """Blobs in a folder, each a file; see ``Blobs``.

    A crash may leave temporary files behind. Several processes may share a folder.

    Args:
        root: the folder; made if it is missing. Temporary files that nobody has written to for an
            hour are removed.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._incoming = root / "incoming"
        self._incoming.mkdir(parents=True, exist_ok=True)
        for path in self._incoming.iterdir():
            with suppress(FileNotFoundError):
                if path.stat().st_mtime < time.time() - FORGOTTEN_S:
                    path.unlink()

    def path(self, sha256: str) -> Path:
        """See ``Blobs``; it is the blob itself."""
        path = self._path(sha256)
        if path is None or not path.is_file():
            raise KeyError(sha256)
        return path

    def has(self, sha256: str) -> bool:
        """See ``Blobs``."""
        path = self._path(sha256)
        return path is not None and path.is_file()

    def names(self) -> Iterator[str]:
        """See ``Blobs``."""
        for path in self._root.glob("??/*"):
            if is_name(path.name):
                yield path.name

    def size_bytes(self, sha256: str) -> int:
        """See ``Blobs``."""
        return self.path(sha256).stat().st_size

    def address(self, sha256: str) -> str | None:
        """See ``Blobs``; there is none."""
        self.path(sha256)
        return None

    def intact(self, sha256: str) -> bool:
        """See ``Blobs``; a file that cannot be read is not intact."""
        try:
            with self.path(sha256).open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest() == sha256
        except (KeyError, OSError):
            return False

    @contextmanager
    def upload(self, sha256: str | None = None) -> Iterator[Upload]:
        """See ``Blobs``."""
        wanted = None if sha256 is None else checked(sha256)
        handle, name = tempfile.mkstemp(dir=self._incoming)
        try:
            with os.fdopen(handle, "wb") as file:
                upload = Upload(file)
                yield upload
                found = upload.sha256()
                if wanted not in (None, found):
                    raise BlobError(f"the content's SHA-256 is {found}, not {wanted}")
                file.flush()
                os.fsync(file.fileno())
            _move(Path(name), self._root / found[:2] / found)
        finally:
            Path(name).unlink(missing_ok=True)

    def delete(self, sha256: str) -> None:
        """See ``Blobs``."""
        path = self._path(sha256)
        if path is not None:
            path.unlink(missing_ok=True)

    def _path(self, sha256: str) -> Path | None:
        return self._root / sha256[:2] / sha256 if is_name(sha256) else None


def _move(source: Path, target: Path) -> None:
    if not target.parent.is_dir():
        target.parent.mkdir(exist_ok=True)
        _sync_folder(target.parent.parent)
    source.replace(target)
    _sync_folder(target.parent)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
