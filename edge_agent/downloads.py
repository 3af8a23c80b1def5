"""Downloads over HTTP into a folder of checked files: bounded, resumed, renamed when complete."""

import http
import http.client
import json
import logging
import os
import re
import ssl
import threading
import urllib.error
import urllib.request
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from weakref import WeakValueDictionary

from edge_agent.errors import PermanentDownloadError, TransientDownloadError
from wire.bundle import file_digest
from wire.checks import Fields
from wire.errors import MessageError
from wire.manifest import task_id

__all__ = ["BlobSource", "Downloads", "Offers", "Patch"]

logger = logging.getLogger(__name__)

TIMEOUT_S = 20.0
CHUNK_BYTES = 1 << 16
MAX_MANIFEST_BYTES = 1 << 20
MAX_OFFERS_BYTES, MAX_OFFERS = 1 << 16, 100
MAX_PATCH_BYTES = 1 << 28
MAX_COUNTER = (1 << 53) - 1
PARTIAL, MADE = ".part", ".made"
SHA256 = re.compile(r"[0-9a-f]{64}")
TRY_LATER = {408, 425, 429, 500, 502, 503, 504}


@dataclass(frozen=True, slots=True)
class Patch:
    """What leads to a published version.

    Attributes:
        base: the version that it is added to; None for zeros.
        sha256: its digest in hex.
        size_bytes: its size.
    """

    base: int | None
    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Offers:
    """The patches that an aggregator offers, and how many bytes it took to say so."""

    patches: Sequence[Patch]
    size_bytes: int


class BlobSource(Protocol):
    """Where an agent gets a task's files from."""

    def manifest(self, task: str) -> bytes:
        """The raw manifest, checked against the task's name."""
        ...

    def file(self, sha256: str, size_bytes: int) -> Path:
        """A file of the bundle, kept for good."""
        ...

    def snapshot(
        self, sha256: str, size_bytes: int, make: Callable[[Path], None] | None = None
    ) -> Path:
        """The parameters of a version, kept until newer ones take their place."""
        ...

    def held(self, sha256: str) -> Path | None:
        """A snapshot that is there already, without asking anyone."""
        ...

    def patches(self, task: str, version: int, base: int | None) -> Offers:
        """What leads to a published version, perhaps from the one that is there."""
        ...

    def patch(self, patch: Patch) -> bytes:
        """A patch."""
        ...

    def rows(self, task: str, version: int, wanted: bytes, most_bytes: int) -> bytes:
        """Some rows of a published version, encoded."""
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
        self._patches = root / "patches"
        self._url, self._timeout_s, self._keep = url, timeout_s, keep_snapshots
        handlers = [] if tls is None else [urllib.request.HTTPSHandler(context=tls)]
        self._opener = urllib.request.build_opener(*handlers)
        self._lock = threading.Lock()
        # A file's lock lives as long as someone is busy with the file. By path and not by digest:
        # whoever makes a snapshot waits for a patch, which an aggregator may call the same.
        self._busy: WeakValueDictionary[Path, threading.Lock] = WeakValueDictionary()
        # What a power cut or a bad card did to a file shows once a process, not at each use.
        self._verified: set[Path] = set()
        for folder in (self._files, self._snapshots, self._patches):
            folder.mkdir(parents=True, exist_ok=True)
        held = [path for path in self._snapshots.iterdir() if SHA256.fullmatch(path.name)]
        held.sort(key=lambda path: path.stat().st_mtime)
        self._recent = OrderedDict.fromkeys(path.name for path in held)

    def manifest(self, task: str) -> bytes:
        """The raw manifest of a task.

        Raises:
            DownloadError: not available, too large, or not the manifest of that name.
        """
        with self._open(f"/v1/tasks/{task}/manifest") as response:
            raw = _read_body(response, MAX_MANIFEST_BYTES + 1)
        if len(raw) > MAX_MANIFEST_BYTES or task_id(raw) != task:
            raise PermanentDownloadError(f"what {self._url} sent is not the manifest of {task}")
        return raw

    def file(self, sha256: str, size_bytes: int) -> Path:
        """A file that is kept for good; see ``snapshot`` for the rest."""
        return self._fetch(self._files / sha256, sha256, size_bytes)

    def snapshot(
        self, sha256: str, size_bytes: int, make: Callable[[Path], None] | None = None
    ) -> Path:
        """A snapshot; when it is complete, the least recently asked ones give way.

        Args:
            sha256: digest in hex.
            size_bytes: exact size; nothing beyond it is written.
            make: writes the file, if it is not there, out of something that takes fewer bytes to
                download; None downloads it.

        Raises:
            DownloadError: transient or permanent; what came so far is kept and resumed from. It is
                permanent if what ``make`` wrote has another digest.
        """
        path = self._fetch(self._snapshots / sha256, sha256, size_bytes, make)
        with self._lock:
            self._recent[sha256] = None
            self._recent.move_to_end(sha256)
            try:
                self._sweep()
            except OSError as error:
                logger.warning("old snapshots stay in %s: %s", self._snapshots, error)
        return path

    def patches(self, task: str, version: int, base: int | None) -> Offers:
        """What leads to a published version in fewer bytes than its snapshot.

        Args:
            task: 32 hex characters.
            version: the published version.
            base: the version that is on the disk, if one is.

        Raises:
            DownloadError: not available, or not understood.
        """
        query = "" if base is None else f"?base={base}"
        with self._open(f"/v1/tasks/{task}/versions/{version}/patches{query}") as response:
            raw = _read_body(response, MAX_OFFERS_BYTES)
        try:
            offered = json.loads(raw)
            if not isinstance(offered, list) or len(offered) > MAX_OFFERS:
                raise MessageError("not a list of patches")
            return Offers([_patch(entry) for entry in offered], len(raw))
        except (ValueError, RecursionError, MessageError) as error:
            raise PermanentDownloadError(f"{self._url} does not list patches: {error}") from None

    def patch(self, patch: Patch) -> bytes:
        """A patch, which is not kept; what came of one that broke off is resumed from.

        Raises:
            DownloadError: transient or permanent.
        """
        path = self._patches / patch.sha256
        with self._alone_with(path):
            self._complete(path, patch.sha256, patch.size_bytes)
            raw = path.read_bytes()
            self._verified.discard(path)
            path.unlink()
        with self._lock:
            try:
                self._sweep_patches()
            except OSError as error:
                logger.warning("old patches stay in %s: %s", self._patches, error)
        return raw

    def rows(self, task: str, version: int, wanted: bytes, most_bytes: int) -> bytes:
        """Some rows of a published version, encoded as a patch of zeros.

        Args:
            task: 32 hex characters.
            version: the published version.
            wanted: the rows' numbers, as ``wire.patch`` encodes them.
            most_bytes: more is not read.

        Raises:
            DownloadError: not available, not allowed, or too large.
        """
        path = f"/v1/tasks/{task}/versions/{version}/rows"
        with self._open(path, body=wanted) as response:
            raw = _read_body(response, most_bytes + 1)
        if len(raw) > most_bytes:
            raise PermanentDownloadError(f"rows take more than the {most_bytes} bytes expected")
        return raw

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
        for path in self._snapshots.iterdir():
            if path.suffix and path.with_suffix("") not in self._busy:
                path.unlink(missing_ok=True)

    def _sweep_patches(self) -> None:
        for path in self._patches.iterdir():
            if path.with_suffix("") not in self._busy:
                path.unlink(missing_ok=True)

    def _intact(self, path: Path, sha256: str) -> bool:
        """Whether a file is there and holds what its name says."""
        if not path.is_file():
            return False
        if path not in self._verified:
            if file_digest(path) != sha256:
                return False
            self._verified.add(path)
        return True

    def _fetch(
        self,
        path: Path,
        sha256: str,
        size_bytes: int,
        make: Callable[[Path], None] | None = None,
    ) -> Path:
        with self._alone_with(path):
            self._complete(path, sha256, size_bytes, make)
        return path

    @contextmanager
    def _alone_with(self, path: Path) -> Iterator[None]:
        """Wait until no other thread is busy with a file; what the disk refuses is transient."""
        with self._lock:
            busy = self._busy.get(path) or threading.Lock()
            self._busy[path] = busy
        with busy:
            try:
                yield
            except OSError as error:
                raise TransientDownloadError(f"cannot store {path.name}: {error}") from None

    def _complete(
        self,
        path: Path,
        sha256: str,
        size_bytes: int,
        make: Callable[[Path], None] | None = None,
    ) -> None:
        if self._intact(path, sha256) and path.stat().st_size == size_bytes:
            return
        self._verified.discard(path)
        if path.is_file():
            logger.warning("%s is damaged and is fetched again", path)
            path.unlink()
        if make is None:
            self._download(path, sha256, size_bytes)
        else:
            _make(path, sha256, make)
        self._verified.add(path)

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

    def _open(
        self, path: str, *, first: int = 0, body: bytes | None = None
    ) -> http.client.HTTPResponse:
        """Ask for a resource, from its byte ``first`` on; with a body, by POST."""
        headers = {"Range": f"bytes={first}-"} if first else {}
        if body is not None:
            headers["Content-Type"] = "application/octet-stream"
        request = urllib.request.Request(self._url + path, body, headers)
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


def _make(path: Path, sha256: str, make: Callable[[Path], None]) -> None:
    # Not the partial file of a download, which would be resumed from it.
    partial = path.with_name(path.name + MADE)
    try:
        make(partial)
        if file_digest(partial) != sha256:
            raise PermanentDownloadError(f"what was made is not {sha256}")
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _patch(entry: object) -> Patch:
    fields = Fields(entry, where="patch", error=MessageError)
    base = fields.take("base")
    sha256, size_bytes = fields.text("sha256"), fields.integer("size_bytes", 1, MAX_PATCH_BYTES)
    fields.done()
    if not SHA256.fullmatch(sha256):
        raise fields.refusal("sha256", sha256, "64 lower-case hex characters")
    if base is not None and (type(base) is not int or not 0 <= base <= MAX_COUNTER):
        raise fields.refusal("base", base, "a version or null")
    return Patch(base, sha256, size_bytes)


def _read(response: http.client.HTTPResponse, most: int) -> bytes:
    try:
        return response.read(most)
    except (OSError, http.client.HTTPException) as error:
        raise TransientDownloadError(f"the download broke off: {error!r}") from None


def _read_body(response: http.client.HTTPResponse, most: int) -> bytes:
    """All of a body, or its first ``most`` bytes."""
    raw = _read(response, most)
    # A connection that breaks shows as an early end, which is no word of the server's.
    if response.length and len(raw) < most:
        raise TransientDownloadError(f"the download broke off {response.length} bytes too early")
    return raw
