"""From an announcement to a base version on the device: what local updates start from."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edge_agent.downloads import BlobSource
from edge_agent.errors import PermanentDownloadError
from edge_agent.runtimes.protocol import Runtime
from edge_agent.store import Store
from edge_agent.task import LocalTask, map_checked, open_task
from wire.delta import FloatArray
from wire.messages import Announcement

__all__ = ["Base", "BaseLoader"]

SNAPSHOT_HEADER_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """What a local update starts from, and how it is to be done.

    Attributes:
        task: the opened task.
        announcement: the version, and the policies in force.
        parameters: the version's federated parameters and the frozen ones, mapped and read only.
    """

    task: LocalTask
    announcement: Announcement
    parameters: Mapping[str, FloatArray]


class BaseLoader:
    """Loads base versions and counts what that costs.

    Args:
        store: remembers the manifest, and which version is on the disk.
        source: where files come from.
        runtime: loads the programs.
    """

    def __init__(self, *, store: Store, source: BlobSource, runtime: Runtime) -> None:
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
        path = self._source.snapshot(announcement.sha256, size_bytes)
        parameters = map_checked(path, task.manifest.federated)
        self._hold(announcement)
        return Base(task=task, announcement=announcement, parameters={**parameters, **task.frozen})

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

    def _hold(self, announcement: Announcement) -> None:
        base = {
            "task": announcement.task,
            "version": announcement.version,
            "sha256": announcement.sha256,
            "size_bytes": announcement.size_bytes,
        }
        if base == self._held:
            return
        self._store.put("base", base)
        # Versions of equal content are one file, which came over the network once.
        if announcement.sha256 != self._held.get("sha256"):
            self._received_bytes += announcement.size_bytes
        self._held = base
