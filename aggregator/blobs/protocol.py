"""What every place for blobs can do."""

import hashlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Protocol

__all__ = ["BlobError", "Blobs", "BlobsUnavailableError", "Upload"]


COPY_BYTES = 1 << 20


class BlobError(Exception):
    """A blob is refused: its name is not a SHA-256, or its content is not what the name says."""


class BlobsUnavailableError(OSError):
    """The blobs cannot be reached for now; like a full disk, it passes. Try again later."""


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


class Blobs(Protocol):
    """Content-addressed storage.

    A blob is stored for good, whole and under its name, before ``put``, ``put_file`` or ``upload``
    return; after a crash there are whole blobs, never parts. Safe to use from many threads.

    Every method may raise OSError, of which BlobsUnavailableError is one: that passes, and nothing
    has changed.
    """

    def has(self, sha256: str) -> bool:
        """Whether the blob is here. What is not a SHA-256 never is."""
        ...

    def names(self) -> Iterator[str]:
        """Every blob that is here, in no order; costs less than to ask for each of many."""
        ...

    def size_bytes(self, sha256: str) -> int:
        """How long a blob is.

        Raises:
            KeyError: there is no such blob.
        """
        ...

    def path(self, sha256: str) -> Path:
        """A file of this machine with a blob's content, to read and not to change.

        Open it within a minute: it may be a copy that gives way to others. What is open stays.

        Raises:
            KeyError: there is no such blob, or not with this content any more.
        """
        ...

    def address(self, sha256: str) -> str | None:
        """A URL where anybody can fetch the blob for a while, or None: then it is served here.

        Raises:
            KeyError: there is no such blob.
        """
        ...

    def intact(self, sha256: str) -> bool:
        """Whether the blob is here and its content, which is read for it, is what its name says."""
        ...

    def put(self, data: bytes) -> str:
        """Store bytes, also in place of a damaged blob; returns their SHA-256 in hex."""
        with self.upload() as upload:
            upload.write(data)
        return upload.sha256()

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

    def upload(self, sha256: str | None = None) -> AbstractContextManager[Upload]:
        """Store a blob in portions; it appears when the block ends without an error.

        Args:
            sha256: what its name shall be; None for whatever comes out.

        Raises:
            BlobError: ``sha256`` is not a SHA-256 in hex, or not that of what was written.
        """
        ...

    def delete(self, sha256: str) -> None:
        """Remove a blob; one that is not here is no error."""
        ...
