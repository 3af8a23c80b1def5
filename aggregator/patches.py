"""Patches between publications, made when a device first asks for one and kept for the next."""

import hashlib
import shutil
import threading
from collections import Counter, OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from aggregator.blobs import Blobs
from aggregator.ledger import PublicationRecord, Reports
from wire.delta import FloatArray
from wire.errors import CodecError
from wire.manifest import Manifest
from wire.parameters import map_parameters
from wire.patch import decode_row_numbers, encode_patch, encode_rows

__all__ = ["Patch", "Patches", "UnpublishedError"]

KEPT = 2_000
LOCKS = 16


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
        self._made: OrderedDict[tuple[str, int | None, int], Patch | None] = OrderedDict()
        self._digests: Counter[str] = Counter()
        self._lock = threading.Lock()
        # A patch asked for by many at once is made by one of them.
        self._making = [threading.Lock() for _ in range(LOCKS)]

    def to(self, task: str, manifest: Manifest, version: int, base: int | None) -> list[Patch]:
        """The patches to a publication that are smaller than its file, the smallest first.

        Args:
            task: 32 hex characters.
            manifest: the task's.
            version: the publication wanted.
            base: the one that the device has, if it has one.

        Raises:
            UnpublishedError: no such publication, or its file is gone.
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
        if not known:
            raise KeyError(sha256)
        return self._root / sha256

    def _publication(self, task: str, version: int) -> PublicationRecord:
        found = self._reports.publication(task, version)
        if found is None or not self._blobs.has(found.sha256):
            raise UnpublishedError(
                f"version {version} is not published (any more); take the one that is announced"
            )
        return found

    def _patch(
        self, manifest: Manifest, wanted: PublicationRecord, base: int | None
    ) -> Patch | None:
        key = (wanted.task, base, wanted.version)
        with self._making[hash(key) % LOCKS]:
            with self._lock:
                if key in self._made:
                    self._made.move_to_end(key)
                    return self._made[key]
            made = self._make(manifest, wanted, base)
            with self._lock:
                self._made[key] = made
                if made is not None:
                    self._digests[made.sha256] += 1
                self._forget()
        return made

    def _make(
        self, manifest: Manifest, wanted: PublicationRecord, base: int | None
    ) -> Patch | None:
        exponents, old = dict(wanted.exponents), None
        try:
            if base is not None:
                begin = self._publication(wanted.task, base)
                old = self._state(begin)
                exponents = {n: min(e, begin.exponents[n]) for n, e in exponents.items()}
            payload = encode_patch(old, self._state(wanted), manifest.federated, exponents)
        except (CodecError, UnpublishedError):
            return None
        sha256 = hashlib.sha256(payload).hexdigest()
        (self._root / f"{sha256}.part").write_bytes(payload)
        (self._root / f"{sha256}.part").replace(self._root / sha256)
        return Patch(base, sha256, len(payload))

    def _state(self, publication: PublicationRecord) -> Mapping[str, FloatArray]:
        return map_parameters(self._blobs.path(publication.sha256))

    def _forget(self) -> None:
        while len(self._made) > KEPT:
            _, old = self._made.popitem(last=False)
            if old is None:
                continue
            self._digests[old.sha256] -= 1
            if not self._digests[old.sha256]:
                del self._digests[old.sha256]
                (self._root / old.sha256).unlink(missing_ok=True)
