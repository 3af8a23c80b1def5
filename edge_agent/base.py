"""From an announcement to a base version on the device: what local updates start from."""

import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_agent.downloads import BlobSource, Patch
from edge_agent.durable_state import DurableState
from edge_agent.errors import PermanentDownloadError
from edge_agent.remote_rows import RemoteRows
from edge_agent.runtimes.protocol import Runtime
from edge_agent.task import LocalTask, map_checked, open_task
from wire.codec import MAX_DECODED_VALUES
from wire.errors import WireError
from wire.manifest import Manifest, Role
from wire.messages import Announcement
from wire.parameters import Table, map_parameters, write_parameters
from wire.patch import apply_patch

__all__ = ["Base", "BaseLoader"]

logger = logging.getLogger(__name__)

SNAPSHOT_HEADER_BYTES = 1 << 20
TABLE_VALUE_BYTES, DENSE_VALUE_BYTES = 0.75, 1.2
"""Of a published parameter, rounded as it is."""
EVALUATED_ROWS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """What a local update starts from, and how it is to be done.

    Attributes:
        task: the opened task.
        announcement: the version, and the policies in force.
        parameters: the version's federated parameters and the frozen ones, read only: mapped, or
            fetched row by row as they are looked at.
    """

    task: LocalTask
    announcement: Announcement
    parameters: Mapping[str, Table]


class BaseLoader:
    """Loads base versions and counts what that costs.

    Args:
        store: remembers the manifest, and which version is on the disk.
        source: where files come from.
        runtime: loads the programs.
    """

    def __init__(self, *, store: DurableState, source: BlobSource, runtime: Runtime) -> None:
        self._store, self._source, self._runtime = store, source, runtime
        self._opened: LocalTask | None = None
        self._held: dict[str, Any] = store.get("base") or {}
        self._received_bytes = 0

    def load(self, announcement: Announcement) -> Base:
        """Get an announced version, downloading what the device does not have.

        Raises:
            DownloadError: something is missing and cannot be had, or is not what was announced.
            ProgramError: the runtime cannot run the task.
            WireError: the manifest or a file is not valid.
            StoreError: the disk failed.
        """
        task = self._open(announcement.task)
        size_bytes, most = announcement.size_bytes, task.manifest.dense_bytes
        if size_bytes > most + SNAPSHOT_HEADER_BYTES:
            raise PermanentDownloadError(
                f"version {announcement.version} is announced with {size_bytes} bytes, but the "
                f"task's parameters take only {most}"
            )
        parameters = self._parameters(task.manifest, announcement)
        return Base(task=task, announcement=announcement, parameters={**parameters, **task.frozen})

    @property
    def received_bytes(self) -> int:
        """Bytes that came in since ``take_received_bytes`` was called last."""
        return self._received_bytes

    def take_received_bytes(self) -> int:
        """Bytes that came in since the last call. A file that the device had before costs none."""
        received, self._received_bytes = self._received_bytes, 0
        return received

    def _open(self, task: str) -> LocalTask:
        if self._opened is None:
            self._opened = open_task(
                task, store=self._store, source=self._source, runtime=self._runtime
            )
            self._received_bytes += self._opened.received_bytes
        return self._opened

    def _parameters(self, manifest: Manifest, announcement: Announcement) -> Mapping[str, Table]:
        path: Path | None = None
        if announcement.sha256 != self._held.get("sha256"):
            patch = self._smallest_patch(announcement)
            least = patch.size_bytes if patch else announcement.size_bytes
            if _allows_rows(manifest) and self._rows_bytes(manifest, announcement) < least:
                return self._remote(manifest, announcement).parameters()
            path = self._patched(manifest, announcement, patch) if patch else None
        if path is None:
            path = self._source.snapshot(announcement.sha256, announcement.size_bytes)
            # Versions of equal content are one file, which came over the network once.
            if announcement.sha256 != self._held.get("sha256"):
                self._received_bytes += announcement.size_bytes
        # What does not fit the manifest must not become what patches are added to.
        parameters = map_checked(path, manifest.federated)
        self._hold(announcement)
        return parameters

    def _smallest_patch(self, announcement: Announcement) -> Patch | None:
        """What costs least, if that is a patch that the device can use."""
        same_task = self._held.get("task") == announcement.task
        base = self._held.get("version") if same_task else None
        try:
            offers = self._source.patches(announcement.task, announcement.version, base)
        except PermanentDownloadError as error:
            logger.info("the whole version is fetched: %s", error)
            return None
        self._received_bytes += offers.size_bytes
        usable = [patch for patch in offers.patches if patch.base in (None, base)]
        patch = min(usable, key=lambda patch: patch.size_bytes, default=None)
        return patch if patch and patch.size_bytes < announcement.size_bytes else None

    def _patched(self, manifest: Manifest, announcement: Announcement, patch: Patch) -> Path | None:
        """The announced version's file, made of an older one; None if that cannot be done."""
        # A patch of no use has come all the same, and one that another agent had was needed too.
        received_bytes = self._received_bytes + patch.size_bytes

        def make(path: Path) -> None:
            payload = self._source.patch(patch)
            self._received_bytes = received_bytes
            if patch.base is None:
                with write_parameters(path, manifest.federated) as state:
                    apply_patch(state, payload, manifest.federated)
                return
            old = self._source.held(self._held["sha256"])
            if old is None:
                raise PermanentDownloadError("the version that the patch is for is gone")
            shutil.copyfile(old, path)
            state = map_parameters(path, writable=True)
            apply_patch(state, payload, manifest.federated)
            for tensor in state.values():
                tensor.flush()

        try:
            path = self._source.snapshot(announcement.sha256, announcement.size_bytes, make)
        except (PermanentDownloadError, WireError) as error:
            logger.warning("a patch did not lead to version %d: %s", announcement.version, error)
            return None
        self._received_bytes = received_bytes
        return path

    def _rows_bytes(self, manifest: Manifest, announcement: Announcement) -> int:
        """About what the rows of one local update would cost."""
        positives = self._store.count_interactions()
        rows = positives * (1 + announcement.training.negatives) + EVALUATED_ROWS
        table, dense = _values(manifest, Role.ROWS), _values(manifest, Role.DENSE)
        share = min(1.0, rows / manifest.items)
        return round(share * table * TABLE_VALUE_BYTES + dense * DENSE_VALUE_BYTES)

    def _remote(self, manifest: Manifest, announcement: Announcement) -> RemoteRows:
        def ask(wanted: bytes, most_bytes: int) -> bytes:
            raw = self._source.rows(announcement.task, announcement.version, wanted, most_bytes)
            self._received_bytes += len(raw)
            return raw

        return RemoteRows(manifest.federated, manifest.items, ask)

    def _hold(self, announcement: Announcement) -> None:
        base = {
            "task": announcement.task,
            "version": announcement.version,
            "sha256": announcement.sha256,
            "size_bytes": announcement.size_bytes,
        }
        if base != self._held:
            self._store.put("base", base)
            self._held = base


def _values(manifest: Manifest, role: Role) -> int:
    return sum(spec.size for spec in manifest.federated if spec.role is role)


def _allows_rows(manifest: Manifest) -> bool:
    """Whether a device may ask for rows; dense parameters come together, however large."""
    return manifest.row_requests and _values(manifest, Role.DENSE) <= MAX_DECODED_VALUES
