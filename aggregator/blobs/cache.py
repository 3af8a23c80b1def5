"""Copies of blobs that are kept elsewhere, in a bounded folder."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path

from aggregator.blobs.folder import FolderBlobs
from aggregator.blobs.protocol import Upload

__all__ = ["Cache"]

IN_USE_S = 60.0


class Cache:
    """A folder of copies; those used longest ago give way.

    Args:
        root: the folder; made if it is missing. It may be removed while nobody uses it.
        most_bytes: what the copies may take together. What was used within the last minute stays
            nevertheless, for somebody may be about to open it.
    """

    def __init__(self, root: Path, most_bytes: int) -> None:
        self._root, self._most_bytes = root, most_bytes
        self._folder = FolderBlobs(root)
        self._trimming = threading.Lock()

    def find(self, sha256: str) -> Path | None:
        """The copy, which counts as used now, or None."""
        with suppress(KeyError, FileNotFoundError):
            path = self._folder.path(sha256)
            os.utime(path)
            return path
        return None

    def intact(self, sha256: str) -> bool:
        """Whether there is a copy, and with the right content."""
        return self._folder.intact(sha256)

    def upload(self, sha256: str | None) -> AbstractContextManager[Upload]:
        """Make a copy; see ``Blobs.upload``."""
        return self._folder.upload(sha256)

    def delete(self, sha256: str) -> None:
        """Remove a copy, if there is one."""
        self._folder.delete(sha256)

    def trim(self) -> None:
        """Make the copies fit again."""
        with self._trimming:
            copies = sorted(self._copies())
            excess = sum(size for _, size, _ in copies) - self._most_bytes
            for used_at, size, path in copies:
                if excess <= 0 or used_at > time.time() - IN_USE_S:
                    return
                path.unlink(missing_ok=True)
                excess -= size

    def _copies(self) -> Iterator[tuple[float, int, Path]]:
        for path in self._root.glob("??/*"):
            with suppress(FileNotFoundError):
                found = path.stat()
                yield found.st_mtime, found.st_size, path
