"""Patches between publications, made when a device first asks for one and kept for the next."""

import hashlib
import logging
import shutil
import threading
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from aggregator.blobs import Blobs
from aggregator.ledger import PublicationRecord, Reports
from wire.delta import FloatArray
from wire.errors import CodecError
from wire.manifest import Manifest
from wire.parameters import map_parameters
from wire.patch import decode_row_numbers, encode_patch, encode_rows, finer

__all__ = ["Patch", "Patches", "UnpublishedError"]

KEPT, KEPT_BYTES = 2_000, 1 << 30
MAKERS, WAIT_S = 2, 10.0
"""How many are made at once, each in up to 85 bytes a value, and how long a request waits for it:
less than a device does."""

_log = logging.getLogger(__name__)


Key = tuple[str, int | None, int]


class UnpublishedError(LookupError):
    """A version has not been published, or its file is not kept any more."""


@dataclass(frozen=True, slots=True)
class Patch:
    """What leads a device to a publication.

    Attributes:
        base: the publication that it begins from; None for zeros.
        sha256: its digest in hex, under which it can be had.
        size_bytes: its size.
    """

    base: int | None
    sha256: str
    size_bytes: int


class Patches:
    """A cache in a folder. Everything in it can be made again. Safe to use from many threads.

    Args:
        root: the folder; emptied.
        reports: which versions were published.
        blobs: their files.
    """

    def __init__(self, root: Path, *, reports: Reports, blobs: Blobs) -> None:
        self._root, self._reports, self._blobs = root, reports, blobs
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir(parents=True)
        self._made: OrderedDict[Key, Patch | None] = OrderedDict()
        self._digests: Counter[str] = Counter()
        self._size_bytes = 0
        self._lock = threading.Lock()
        # A patch asked for by many at once is made by one of them.
        self._making = [threading.Lock() for _ in range(MAKERS)]

    def to(self, task: str, manifest: Manifest, version: int, base: int | None) -> list[Patch]:
        """The patches to a publication that are smaller than its file, the smallest first.

        Args:
            task: 32 hex characters.
            manifest: the task's.
            version: the publication wanted.
            base: the one that the device has, if it has one.

        Raises:
            UnpublishedError: no such publication, or its file is gone.
            TimeoutError: too many others are being made.
        """
        wanted = self._publication(task, version)
        bases = {None, base if base is not None and base < version else None}
        found = [self._patch(manifest, wanted, begin) for begin in bases]
        smaller = [patch for patch in found if patch and patch.size_bytes < wanted.size_bytes]
        return sorted(smaller, key=lambda patch: patch.size_bytes)

    def rows(self, task: str, manifest: Manifest, version: int, wanted: bytes) -> bytes:
        """Some rows of a publication's tables and its dense parameters, as a patch of zeros.

        Args:
            task: 32 hex characters.
            manifest: the task's.
            version: a publication.
            wanted: row numbers as ``wire.patch`` encodes them.

        Raises:
            UnpublishedError: no such publication, or its file is gone.
            CodecError: ``wanted`` is malformed, or asks for too much at once.
        """
        publication = self._publication(task, version)
        rows = decode_row_numbers(wanted, manifest.items)
        specs = manifest.federated
        return encode_rows(self._state(publication), rows, specs, publication.exponents)

    def path(self, sha256: str) -> Path:
        """Where a patch lies.

        Raises:
            KeyError: it is not here, or not any more.
        """
        # The name comes from a URL: only one that was made here may become a path.
        with self._lock:
            known = sha256 in self._digests
        if not known or not (self._root / sha256).is_file():
            raise KeyError(sha256)
        return self._root / sha256

    def _publication(self, task: str, version: int) -> PublicationRecord:
        found = self._reports.publication(task, version)
        if found is None or not self._blobs.has(found.sha256):
            raise _unpublished(version)
        return found

    def _patch(
        self, manifest: Manifest, wanted: PublicationRecord, base: int | None
    ) -> Patch | None:
        key = (wanted.task, base, wanted.version)
        found = self._found(key)
        if not found:
            with self._turn(hash(key) % MAKERS):
                found = self._found(key)
                if not found:
                    found = [self._make(manifest, wanted, base)]
                    self._remember(key, found[0])
        return found[0]

    def _found(self, key: Key) -> list[Patch | None]:
        """What is known of a patch: nothing, or that there is none, or the patch."""
        with self._lock:
            if key not in self._made:
                return []
            made = self._made[key]
            if made is not None and not (self._root / made.sha256).is_file():
                self._drop(key)
                return []
            self._made.move_to_end(key)
            return [made]

    def _remember(self, key: Key, made: Patch | None) -> None:
        with self._lock:
            self._made[key] = made
            if made is not None:
                self._digests[made.sha256] += 1
                self._size_bytes += made.size_bytes
            while len(self._made) > KEPT or (self._size_bytes > KEPT_BYTES and len(self._made) > 1):
                self._drop(next(iter(self._made)))

    @contextmanager
    def _turn(self, maker: int) -> Iterator[None]:
        """Wait until it is one's turn.

        Raises:
            TimeoutError: that takes too long.
        """
        if not self._making[maker].acquire(timeout=WAIT_S):
            raise TimeoutError("too many patches are being made")
        try:
            yield
        finally:
            self._making[maker].release()

    def _make(
        self, manifest: Manifest, wanted: PublicationRecord, base: int | None
    ) -> Patch | None:
        exponents, old = dict(wanted.exponents), None
        try:
            if base is not None:
                begin = self._publication(wanted.task, base)
                old = self._state(begin)
                exponents = finer(exponents, begin.exponents)
            payload = encode_patch(old, self._state(wanted), manifest.federated, exponents)
        except (CodecError, UnpublishedError):
            return None
        sha256 = hashlib.sha256(payload).hexdigest()
        partial = self._root / f"{sha256}.{uuid4().hex}"
        try:
            partial.write_bytes(payload)
            partial.replace(self._root / sha256)
        except OSError as error:
            _log.error(
                "a patch cannot be kept, so devices take version %d whole: %s",
                wanted.version,
                error,
            )
            partial.unlink(missing_ok=True)
            return None
        return Patch(base, sha256, len(payload))

    def _state(self, publication: PublicationRecord) -> Mapping[str, FloatArray]:
        try:
            return map_parameters(self._blobs.path(publication.sha256))
        except (KeyError, FileNotFoundError):
            # Removed since it was looked up.
            raise _unpublished(publication.version) from None

    def _drop(self, key: Key) -> None:
        old = self._made.pop(key)
        if old is None:
            return
        self._size_bytes -= old.size_bytes
        self._digests[old.sha256] -= 1
        if not self._digests[old.sha256]:
            del self._digests[old.sha256]
            (self._root / old.sha256).unlink(missing_ok=True)


def _unpublished(version: int) -> UnpublishedError:
    return UnpublishedError(
        f"version {version} is not published (any more); take the one that is announced"
    )
