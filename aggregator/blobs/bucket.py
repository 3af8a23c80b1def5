"""Blobs in a bucket of a service that speaks S3, with copies of those in use on this machine."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from weakref import WeakValueDictionary

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from aggregator.blobs.cache import Cache
from aggregator.blobs.names import is_name
from aggregator.blobs.protocol import COPY_BYTES, BlobError, Blobs, BlobsUnavailableError, Upload

__all__ = ["BucketBlobs"]

ADDRESS_LIFE = timedelta(hours=1)
TOGETHER = 4
"""How many parts of a large blob travel at the same time."""

_log = logging.getLogger(__name__)


class BucketBlobs(Blobs):
    """Blobs in a bucket, each an object; see ``Blobs``.

    What is written goes to the bucket before it counts. What is read comes from a copy on this
    machine, fetched and checked when it is first wanted, so that a version that all devices ask for
    leaves the bucket once.

    Args:
        store: the bucket, with the prefix under which the blobs are.
        cache: for the copies.
        redirect: whether ``address`` gives signed URLs, good for an hour.
    """

    def __init__(self, store: S3Store, cache: Cache, *, redirect: bool = False) -> None:
        self._store, self._cache, self._redirect = store, cache, redirect
        self._guard = threading.Lock()
        self._fetching: WeakValueDictionary[str, threading.Lock] = WeakValueDictionary()

    def check(self) -> None:
        """Look whether the bucket can be read; raises BlobsUnavailableError."""
        with _asking("be listed"):
            next(iter(obstore.list(self._store, chunk_size=1)), None)

    def has(self, sha256: str) -> bool:
        """See ``Blobs``."""
        try:
            self.size_bytes(sha256)
        except KeyError:
            return False
        return True

    def names(self) -> Iterator[str]:
        """See ``Blobs``."""
        with _asking("be listed"):
            for page in obstore.list(self._store):
                for entry in page:
                    name = entry["path"].rpartition("/")[2]
                    if is_name(name):
                        yield name

    def size_bytes(self, sha256: str) -> int:
        """See ``Blobs``."""
        if not is_name(sha256):
            raise KeyError(sha256)
        try:
            with _asking("be asked"):
                return obstore.head(self._store, _key(sha256))["size"]
        except FileNotFoundError:
            raise KeyError(sha256) from None

    def path(self, sha256: str) -> Path:
        """See ``Blobs``; it is a copy."""
        if not is_name(sha256):
            raise KeyError(sha256)
        found = self._cache.find(sha256)
        if found is not None:
            return found
        with self._only_one(sha256):
            found = self._cache.find(sha256)
            return self._fetch(sha256) if found is None else found

    def address(self, sha256: str) -> str | None:
        """See ``Blobs``."""
        if not self._redirect:
            return None
        self.size_bytes(sha256)
        with _asking("sign"):
            return obstore.sign(self._store, "GET", _key(sha256), ADDRESS_LIFE)

    def intact(self, sha256: str) -> bool:
        """See ``Blobs``; a copy that is intact is looked for in the bucket, and not read again."""
        if is_name(sha256) and self._cache.intact(sha256):
            return self.has(sha256)
        if is_name(sha256):
            self._cache.delete(sha256)
        try:
            self.path(sha256)
        except KeyError:
            return False
        return True

    @contextmanager
    def upload(self, sha256: str | None = None) -> Iterator[Upload]:
        """See ``Blobs``."""
        with self._cache.upload(sha256) as upload:
            yield upload
        found = upload.sha256()
        try:
            self._send(found)
        except BaseException:
            self._cache.delete(found)
            raise
        self._cache.trim()

    def delete(self, sha256: str) -> None:
        """See ``Blobs``."""
        if not is_name(sha256):
            return
        self._cache.delete(sha256)
        try:
            with _asking("be written"):
                obstore.delete(self._store, _key(sha256))
        except FileNotFoundError:
            pass

    def _send(self, sha256: str) -> None:
        copy = self._cache.find(sha256)
        if copy is None:
            raise BlobsUnavailableError(f"the copy of blob {sha256} is gone")
        try:
            with _asking("be written"):
                obstore.put(self._store, _key(sha256), copy, max_concurrency=TOGETHER)
        except FileNotFoundError as error:
            raise BlobsUnavailableError(f"the bucket is not there: {error}") from None

    def _fetch(self, sha256: str) -> Path:
        try:
            with self._cache.upload(sha256) as upload, _asking("be read"):
                for portion in obstore.get(self._store, _key(sha256)).stream(COPY_BYTES):
                    upload.write(portion)
        except FileNotFoundError:
            raise KeyError(sha256) from None
        except BlobError as error:
            _log.error("blob %s is damaged in the bucket: %s", sha256, error)
            raise KeyError(sha256) from None
        self._cache.trim()
        found = self._cache.find(sha256)
        if found is None:
            raise BlobsUnavailableError(f"the copy of blob {sha256} is gone")
        return found

    @contextmanager
    def _only_one(self, sha256: str) -> Iterator[None]:
        """Of many who want the same blob at the same time, one fetches it."""
        with self._guard:
            lock = self._fetching.get(sha256) or threading.Lock()
            self._fetching[sha256] = lock
        with lock:
            yield


def _key(sha256: str) -> str:
    return f"{sha256[:2]}/{sha256}"


@contextmanager
def _asking(what: str) -> Iterator[None]:
    try:
        yield
    except BaseError as error:
        # The first line says what happened; the rest is the library's own structures.
        reason = str(error).partition("\n")[0]
        raise BlobsUnavailableError(f"the bucket cannot {what}: {reason}") from None
