"""What a device must not forget, as the agent sees it: a seam with a store behind it.

On a device that is ``edge_agent.store.Store``, a SQLite file; a simulation has one in memory.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from edge_agent.errors import StoreError
from edge_agent.history import History
from edge_agent.interactions import Interaction
from wire.delta import Delta, FloatArray, Tensor
from wire.manifest import ContextField, ParameterSpec
from wire.policy import CodecPolicy

__all__ = ["COUNTERS", "DurableState", "OutboxEntry", "Waiting"]

COUNTERS = ("created", "sends", "sent_bytes", "accepted", "duplicate", "rejected", "received_bytes")


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxEntry:
    """One update that waits for its receipt.

    Attributes:
        sequence: the device's number for it.
        task: the task it belongs to.
        payload: the whole encoded message, as published.
        base_version: the version that training started from.
        created_at: unix seconds.
        attempts: how often it was handed to the network.
        next_attempt_at: unix seconds; when to send it (again).
    """

    sequence: int
    task: str
    payload: bytes
    base_version: int
    created_at: float
    attempts: int
    next_attempt_at: float


@dataclass(frozen=True, slots=True)
class Waiting:
    """How much the outbox holds: number of updates, and their size in bytes."""

    updates: int
    size_bytes: int


class DurableState(Protocol):
    """The device's durable state. Every method is one transaction: all of it happens, or nothing.

    Every method raises StoreError where the storage fails.
    """

    def close(self) -> None:
        """Give the storage back; the object is of no use afterwards."""
        ...

    # Small facts

    def get(self, name: str) -> Any:
        """A fact by its name, as it was put; None when it never was."""
        ...

    def put(self, name: str, value: Any) -> None:
        """Remember a JSON-ready fact."""
        ...

    def claim(self, device: str) -> None:
        """Make this the state of a device.

        Raises:
            StoreError: it belongs to another one, whose sequence numbers it continues.
        """
        owner = self.get("device")
        if owner is None:
            self.put("device", device)
        elif owner != device:
            raise StoreError(
                f"this state belongs to the device {owner!r}, not to {device!r}; "
                "give each device a state_dir of its own"
            )

    def counters(self) -> dict[str, int]:
        """All of ``COUNTERS`` since the state began."""
        ...

    # Interactions

    def add_interactions(self, events: Iterable[Interaction]) -> int:
        """Add interactions; one with the time and item of an earlier one is left alone.

        Returns:
            How many were new.
        """
        ...

    def history(self, fields: Sequence[ContextField] = ()) -> History:
        """The whole history, oldest first, with the context ids of these fields as they came."""
        ...

    def count_interactions(self) -> int:
        """Length of the history."""
        ...

    # Tasks

    def manifest(self, task: str) -> bytes | None:
        """The raw manifest of a task, if it was kept."""
        ...

    def keep_manifest(self, task: str, raw: bytes) -> None:
        """Keep the raw manifest of a task."""
        ...

    def private(self, task: str, specs: Sequence[ParameterSpec]) -> dict[str, FloatArray]:
        """The private parameters of a task, float32 in full shape; empty at the start."""
        ...

    def residual(
        self,
        task: str,
        specs: Sequence[ParameterSpec],
        touched: Delta | None = None,
        policy: CodecPolicy | None = None,
    ) -> dict[str, Tensor]:
        """What the codec left out so far, over the federated parameters of a task.

        Args:
            task: the task.
            specs: its federated parameters.
            touched: read only the rows of this delta; None reads all, as they were left out.
            policy: how those rows age; None for rows as they were left out.
        """
        ...

    # The outbox

    def last_sequence(self) -> int:
        """The number of the newest update, 0 before the first."""
        return int(self.get("sequence") or 0)

    def record_update(
        self,
        entry: OutboxEntry,
        *,
        private: Mapping[str, FloatArray],
        residual: Delta,
        residual_updates: int,
        facts: Mapping[str, Any],
        received_bytes: int,
    ) -> None:
        """Everything that a local update changes, at once: this is what makes it happen.

        Args:
            entry: what is to be sent; its sequence becomes the last one.
            private: the new private parameters.
            residual: replaces these rows of the task's residual.
            residual_updates: after so many updates that did not touch a row, its residual goes.
            facts: JSON-ready facts to remember with it.
            received_bytes: downloaded for it.

        Raises:
            StoreError: an update of this sequence waits already.
        """
        ...

    def waiting(self) -> Waiting:
        """How much waits for receipts."""
        ...

    def entry(self, sequence: int) -> OutboxEntry | None:
        """One waiting update."""
        ...

    def next_entry(self) -> OutboxEntry | None:
        """The waiting update that is to be sent first."""
        ...

    def sent(self, entry: OutboxEntry, *, next_attempt_at: float) -> None:
        """One more attempt was made."""
        ...

    def postpone(self, sequence: int, next_attempt_at: float) -> None:
        """Send one waiting update at another time."""
        ...

    def hasten(self, latest: float, *, most_attempts: int | None = None) -> None:
        """Send at ``latest`` (unix seconds) what waits longer.

        Args:
            latest: unix seconds.
            most_attempts: leave alone what had more attempts so far; None: however many.
        """
        ...

    def settle(self, sequence: int, counter: str) -> None:
        """Forget a waiting update that was accepted or is a duplicate, and count the outcome."""
        ...

    def take_back(self, entry: OutboxEntry, residual: Delta) -> None:
        """Forget a rejected update; ``residual`` has its content and replaces those rows."""
        ...
