"""Downloads without a network: from the aggregator's own blobs, at what they would cost."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from aggregator.blobs import Blobs
from aggregator.patches import Patches, UnpublishedError
from edge_agent.downloads import Offers, Patch
from edge_agent.errors import PermanentDownloadError
from wire.bundle import Bundle
from wire.errors import CodecError

__all__ = ["DirectSource"]


class DirectSource:
    """A ``BlobSource`` of one task, which every device of a simulation shares.

    Args:
        bundle: the task.
        blobs: the aggregator's.
        patches: the aggregator's.
    """

    def __init__(self, bundle: Bundle, blobs: Blobs, patches: Patches) -> None:
        self._bundle, self._blobs, self._patches = bundle, blobs, patches
        self._version, self._offers = -1, dict[int | None, Offers]()

    def manifest(self, task: str) -> bytes:
        """See ``BlobSource``."""
        if task != self._bundle.task:
            raise PermanentDownloadError(f"no task {task}")
        return self._bundle.raw_manifest

    def file(self, sha256: str, size_bytes: int) -> Path:
        """See ``BlobSource``."""
        del size_bytes
        try:
            return self._blobs.path(sha256)
        except KeyError:
            raise PermanentDownloadError(f"no blob {sha256}") from None

    def snapshot(
        self, sha256: str, size_bytes: int, make: Callable[[Path], None] | None = None
    ) -> Path:
        """See ``BlobSource``: what ``make`` would make is there already."""
        del make
        return self.file(sha256, size_bytes)

    def held(self, sha256: str) -> Path | None:
        """See ``BlobSource``."""
        return self._blobs.path(sha256) if self._blobs.has(sha256) else None

    def patches(self, task: str, version: int, base: int | None) -> Offers:
        """See ``BlobSource``: to the version that is asked for now, all that have one are equal."""
        if version != self._version:
            self._version, self._offers = version, {}
        if base not in self._offers:
            self._offers[base] = self._offered(task, version, base)
        return self._offers[base]

    def _offered(self, task: str, version: int, base: int | None) -> Offers:
        try:
            found = self._patches.to(task, self._bundle.manifest, version, base)
        except UnpublishedError as error:
            raise PermanentDownloadError(str(error)) from None
        offered = [Patch(patch.base, patch.sha256, patch.size_bytes) for patch in found]
        return Offers(offered, len(json.dumps([asdict(patch) for patch in offered])))

    def patch(self, patch: Patch) -> bytes:
        """See ``BlobSource``."""
        return self._patches.path(patch.sha256).read_bytes()

    def rows(self, task: str, version: int, wanted: bytes, most_bytes: int) -> bytes:
        """See ``BlobSource``."""
        del most_bytes
        try:
            return self._patches.rows(task, self._bundle.manifest, version, wanted)
        except (UnpublishedError, CodecError) as error:
            raise PermanentDownloadError(str(error)) from None
