"""A folder of immutable files, each named by its SHA-256."""

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

__all__ = ["BlobError", "Blobs", "Upload"]

COPY_BYTES = 1 << 20
_SHA256 = re.compile(r"[0-9a-f]{64}")


class BlobError(Exception):
    """A blob is refused: its name is not a SHA-256, or its content is not what the name says."""


class Upload:
    """A blob on its way in; see ``Blobs.upload``."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self.size_bytes = 0

    def write(self, data: bytes) -> None:
        """Append a portion."""
        self._file.write(data)
        self._digest.update(data)
        self.size_bytes += len(data)

    def sha256(self) -> str:
        """Digest of what was written so far, in hex."""
        return self._digest.hexdigest()


class Blobs:
    """Content-addressed storage in a folder.

    A blob is on the disk, whole and under its name, before ``put`` or ``upload`` return; after a
    crash there are whole blobs and forgotten temporary files, never parts. Safe to use from many
    threads.

    Args:
        root: the folder; made if it is missing. Temporary files of a former life are removed.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._incoming = root / "incoming"
        shutil.rmtree(self._incoming, ignore_errors=True)
        self._incoming.mkdir(parents=True)

    def path(self, sha256: str) -> Path:
        """Where a blob lies.

        Raises:
            KeyError: there is no such blob.
        """
        path = self._path(sha256)
        if path is None or not path.is_file():
            raise KeyError(sha256)
        return path

    def has(self, sha256: str) -> bool:
        """Whether the blob is here."""
        path = self._path(sha256)
        return path is not None and path.is_file()

    def intact(self, sha256: str) -> bool:
        """Whether the blob is here and its content, which is read for it, is what its name says."""
        try:
            with self.path(sha256).open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest() == sha256
        except (KeyError, OSError):
            return False

    def put(self, data: bytes) -> str:
        """Store bytes, also in place of a damaged blob; returns their SHA-256 in hex."""
        sha256 = hashlib.sha256(data).hexdigest()
        if not self.intact(sha256):
            with self.upload(sha256) as upload:
                upload.write(data)
        return sha256

    def put_file(self, source: Path, sha256: str) -> None:
        """Copy a file in, unless it is here and intact.

        Raises:
            BlobError: its digest is another.
        """
        if self.intact(sha256):
            return
        with source.open("rb") as file, self.upload(sha256) as upload:
            while data := file.read(COPY_BYTES):
                upload.write(data)

    @contextmanager
    def upload(self, sha256: str) -> Iterator[Upload]:
        """Store a blob in portions; it appears when the block ends without an error.

        Raises:
            BlobError: ``sha256`` is not a SHA-256 in hex, or not that of what was written.
        """
        target = self._path(sha256)
        if target is None:
            raise BlobError(
                f"{sha256!r:.80} is not a SHA-256; expected 64 lower-case hex characters"
            )
        handle, name = tempfile.mkstemp(dir=self._incoming)
        try:
            with os.fdopen(handle, "wb") as file:
                upload = Upload(file)
                yield upload
                if upload.sha256() != sha256:
                    raise BlobError(f"the content's SHA-256 is {upload.sha256()}, not {sha256}")
                file.flush()
                os.fsync(file.fileno())
            _move(Path(name), target)
        finally:
            Path(name).unlink(missing_ok=True)

    def delete(self, sha256: str) -> None:
        """Remove a blob; one that is not here is no error."""
        path = self._path(sha256)
        if path is not None:
            path.unlink(missing_ok=True)

    def _path(self, sha256: str) -> Path | None:
        # The name comes from a URL: only a digest may become a path.
        valid = _SHA256.fullmatch(sha256)
        return self._root / sha256[:2] / sha256 if valid else None


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
