"""Downloads over HTTP into a folder of checked files: bounded, resumed, renamed when complete."""

import http
import http.client
import logging
import os
import ssl
import threading
import urllib.error
import urllib.request
from collections import OrderedDict
from pathlib import Path
from typing import Protocol
from weakref import WeakValueDictionary

from edge_agent.errors import PermanentDownloadError, TransientDownloadError
from wire.bundle import file_digest
from wire.manifest import task_id

__all__ = ["BlobSource", "Downloads"]

logger = logging.getLogger(__name__)

TIMEOUT_S = 20.0
CHUNK_BYTES = 1 << 16
MAX_MANIFEST_BYTES = 1 << 20
PARTIAL = ".part"
TRY_LATER = {408, 425, 429, 500, 502, 503, 504}


class BlobSource(Protocol):
    """Where an agent gets a task's files from."""

    def manifest(self, task: str) -> bytes:
        """The raw manifest, checked against the task's name."""
        ...

    def file(self, sha256: str, size_bytes: int) -> Path:
        """A file of the bundle, kept for good."""
        ...

    def snapshot(self, sha256: str, size_bytes: int) -> Path:
        """The parameters of a version, kept until newer ones take their place."""
        ...


class Downloads:
    """A folder of files named by their SHA-256, filled from an aggregator when asked.

    Several threads may share one; each file is then downloaded once.

    Args:
        root: the folder; made when missing.
        url: base URL of the aggregator, without a slash at its end.
        tls: for https; None uses the system's certificates.
        keep_snapshots: how many snapshots stay on disk, at least 1.
        timeout_s: longest silence of the server.
    """

    def __init__(
        self,
        root: Path,
        url: str,
        *,
        tls: ssl.SSLContext | None = None,
        keep_snapshots: int = 1,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._files, self._snapshots = root / "files", root / "snapshots"
        self._url, self._timeout_s, self._keep = url, timeout_s, keep_snapshots
        handlers = [] if tls is None else [urllib.request.HTTPSHandler(context=tls)]
        self._opener = urllib.request.build_opener(*handlers)
        self._lock = threading.Lock()
        # A file's lock lives as long as someone is busy with the file.
        self._busy: WeakValueDictionary[str, threading.Lock] = WeakValueDictionary()
        # What a power cut or a bad card did to a file shows once a process, not at each use.
        self._verified: set[Path] = set()
        for folder in (self._files, self._snapshots):
            folder.mkdir(parents=True, exist_ok=True)
        held = [path for path in self._snapshots.iterdir() if path.suffix != PARTIAL]
        held.sort(key=lambda path: path.stat().st_mtime)
        self._recent = OrderedDict.fromkeys(path.name for path in held)

    def manifest(self, task: str) -> bytes:
        """The raw manifest of a task.

        Raises:
            DownloadError: not available, too large, or not the manifest of that name.
        """
        with self._open(f"/v1/tasks/{task}/manifest") as response:
            raw = _read(response, MAX_MANIFEST_BYTES + 1)
        if len(raw) > MAX_MANIFEST_BYTES or task_id(raw) != task:
            raise PermanentDownloadError(f"what {self._url} sent is not the manifest of {task}")
        return raw

    def file(self, sha256: str, size_bytes: int) -> Path:
        """A file that is kept for good; see ``snapshot`` for the rest."""
        return self._fetch(self._files / sha256, sha256, size_bytes)

    def snapshot(self, sha256: str, size_bytes: int) -> Path:
        """A snapshot; when it is complete, the least recently asked ones give way.

        Args:
            sha256: digest in hex.
            size_bytes: exact size; nothing beyond it is written.

        Raises:
            DownloadError: transient or permanent; what came so far is kept and resumed from.
        """
        path = self._fetch(self._snapshots / sha256, sha256, size_bytes)
        with self._lock:
            self._recent[sha256] = None
            self._recent.move_to_end(sha256)
            try:
                self._sweep()
            except OSError as error:
                logger.warning("old snapshots stay in %s: %s", self._snapshots, error)
        return path

    def held(self, sha256: str) -> Path | None:
        """A snapshot that is on the disk already, without asking anyone."""
        path = self._snapshots / sha256
        return path if self._intact(path, sha256) else None

    def _sweep(self) -> None:
        while len(self._recent) > self._keep:
            old = self._snapshots / self._recent.popitem(last=False)[0]
            self._verified.discard(old)
            # A file that is still mapped somewhere lives on until the map is closed.
            old.unlink(missing_ok=True)
        for partial in self._snapshots.glob(f"*{PARTIAL}"):
            if partial.stem not in self._busy:
                partial.unlink()

    def _intact(self, path: Path, sha256: str) -> bool:
        """Whether a file is there and holds what its name says."""
        if not path.is_file():
            return False
        if path not in self._verified:
            if file_digest(path) != sha256:
                return False
            self._verified.add(path)
        return True

    def _fetch(self, path: Path, sha256: str, size_bytes: int) -> Path:
        with self._lock:
            busy = self._busy.get(sha256) or threading.Lock()
            self._busy[sha256] = busy
        with busy:
            try:
                if self._intact(path, sha256) and path.stat().st_size == size_bytes:
                    return path
                self._verified.discard(path)
                if path.is_file():
                    logger.warning("%s is damaged and is fetched again", path)
                    path.unlink()
                self._download(path, sha256, size_bytes)
                self._verified.add(path)
            except OSError as error:
                raise TransientDownloadError(f"cannot store {path.name}: {error}") from None
        return path

    def _download(self, path: Path, sha256: str, size_bytes: int) -> None:
        partial = path.with_name(path.name + PARTIAL)
        partial.touch()
        if partial.stat().st_size > size_bytes:
            os.truncate(partial, 0)
        if partial.stat().st_size < size_bytes:
            self._append(partial, sha256, size_bytes)
        if file_digest(partial) != sha256:
            partial.unlink()
            raise TransientDownloadError(f"blob {sha256} arrived damaged: its digest is another")
        partial.replace(path)

    def _append(self, partial: Path, sha256: str, size_bytes: int) -> None:
        """Bring a partial file to its full size, from where it stops if the server can do that."""
        have = partial.stat().st_size
        with self._open(f"/v1/blobs/{sha256}", first=have) as response:
            if response.status != http.HTTPStatus.PARTIAL_CONTENT:
                have = 0
            elif not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
                raise TransientDownloadError(f"blob {sha256}: the server sent another range")
            if response.length is not None and have + response.length != size_bytes:
                raise PermanentDownloadError(
                    f"blob {sha256} has {have + response.length} bytes; {size_bytes} were announced"
                )
            with partial.open("ab" if have else "wb") as out:
                while chunk := _read(response, min(CHUNK_BYTES, size_bytes - out.tell())):
                    out.write(chunk)
                out.flush()
                os.fsync(out.fileno())
                if out.tell() < size_bytes:
                    raise TransientDownloadError(
                        f"blob {sha256} ended after {out.tell()} of {size_bytes} bytes"
                    )

    def _open(self, path: str, *, first: int = 0) -> http.client.HTTPResponse:
        """Ask for a resource, from its byte ``first`` on."""
        headers = {"Range": f"bytes={first}-"} if first else {}
        request = urllib.request.Request(self._url + path, headers=headers)
        try:
            response: http.client.HTTPResponse = self._opener.open(request, timeout=self._timeout_s)
        except urllib.error.HTTPError as error:
            error.close()
            kind = TransientDownloadError if error.code in TRY_LATER else PermanentDownloadError
            raise kind(f"{self._url}{path}: {error.code} {error.reason}") from None
        except urllib.error.URLError as error:
            untrusted = isinstance(error.reason, ssl.SSLCertVerificationError)
            kind = PermanentDownloadError if untrusted else TransientDownloadError
            raise kind(f"cannot reach {self._url}: {error.reason}") from None
        except (OSError, http.client.HTTPException) as error:
            raise TransientDownloadError(f"cannot reach {self._url}: {error!r}") from None
        return response


def _read(response: http.client.HTTPResponse, most: int) -> bytes:
    try:
        return response.read(most)
    except (OSError, http.client.HTTPException) as error:
        raise TransientDownloadError(f"the download broke off: {error!r}") from None
