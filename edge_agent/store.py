"""What a device must not forget: interactions, what it learned, and what is not yet sent."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_agent.database import Database
from edge_agent.errors import StoreError
from edge_agent.history import UNKNOWN, History
from edge_agent.interactions import Interaction
from edge_agent.residuals import Residuals
from wire.delta import Delta, FloatArray, Tensor
from wire.manifest import ContextField, ParameterSpec
from wire.policy import CodecPolicy

__all__ = ["OutboxEntry", "Store", "Waiting"]

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


class Store:
    """The device's durable state. Every method is one transaction.

    Args:
        path: the database file.
        durability: ``full`` or ``normal``, see ``AgentConfig.durability``.

    Raises:
        StoreError: the file cannot be opened, or is newer than this code.
    """

    def __init__(self, path: Path, *, durability: str = "full") -> None:
        self._database = Database(path, durability=durability)
        self._residuals = Residuals(self._database)

    def close(self) -> None:
        """Close the file; the object is of no use afterwards."""
        self._database.close()

    # Small facts

    def get(self, name: str) -> Any:
        """A fact by its name, as it was put; None when it never was."""
        row = self._database.execute("SELECT value FROM state WHERE name = ?", (name,)).fetchone()
        return None if row is None else json.loads(row[0])

    def put(self, name: str, value: Any) -> None:
        """Remember a JSON-ready fact."""
        with self._database.transaction():
            self._put(name, value)

    def claim(self, device: str) -> None:
        """Make this the database of a device.

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
        """All counters since the database was made."""
        counted = dict(self._database.execute("SELECT name, value FROM counters").fetchall())
        return {name: counted.get(name, 0) for name in COUNTERS}

    # Interactions

    def add_interactions(self, events: Iterable[Interaction]) -> int:
        """Add interactions; one with the time and item of an earlier one is left alone.

        Returns:
            How many were new.
        """
        statement = "INSERT OR IGNORE INTO interactions (item, at, context) VALUES (?, ?, ?)"
        rows = [(event.item, event.at, _packed(event.context)) for event in events]
        with self._database.transaction():
            return self._database.execute_many(statement, rows).rowcount

    def history(self, fields: Sequence[ContextField] = ()) -> History:
        """The whole history, oldest first, with the context ids of these fields as they came."""
        columns = "".join(", coalesce(json_extract(context, ?), ?)" for _ in fields)
        query = f"SELECT item{columns} FROM interactions ORDER BY at, id"
        values = tuple(value for field in fields for value in (f'$."{field.name}"', UNKNOWN))
        rows = self._database.execute(query, values).fetchall()
        table = np.array(rows, np.int64).reshape(len(rows), 1 + len(fields))
        return History(np.ascontiguousarray(table[:, 0]), np.ascontiguousarray(table[:, 1:]))

    def count_interactions(self) -> int:
        """Length of the history."""
        return int(self._database.execute("SELECT count(*) FROM interactions").fetchone()[0])

    # Tasks

    def manifest(self, task: str) -> bytes | None:
        """The raw manifest of a task, if it was kept."""
        query = "SELECT raw FROM manifests WHERE task = ?"
        row = self._database.execute(query, (task,)).fetchone()
        return None if row is None else bytes(row[0])

    def keep_manifest(self, task: str, raw: bytes) -> None:
        """Keep the raw manifest of a task."""
        with self._database.transaction():
            self._database.execute("INSERT OR REPLACE INTO manifests VALUES (?, ?)", (task, raw))

    def private(self, task: str, specs: Sequence[ParameterSpec]) -> dict[str, FloatArray]:
        """The private parameters of a task, float32 in full shape; empty at the start."""
        query = "SELECT parameter, value FROM private WHERE task = ?"
        values = dict(self._database.execute(query, (task,)).fetchall())
        shapes = {spec.name: spec.shape for spec in specs if spec.name in values}
        return {name: _array(values[name], shape) for name, shape in shapes.items()}

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
            touched: read only the rows of this delta; None reads all.
            policy: how those rows age; None for rows as they were left out.
        """
        if touched is None:
            return self._residuals.read(task, specs)
        return self._residuals.read_touched(
            task, specs, touched, updates=self._created(), policy=policy
        )

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
        """
        with self._database.transaction():
            self._insert(entry)
            for name, value in private.items():
                self._database.execute(
                    "INSERT OR REPLACE INTO private VALUES (?, ?, ?)",
                    (entry.task, name, _bytes(value)),
                )
            updates = self._created() + 1
            self._residuals.write(entry.task, residual, updates=updates)
            self._residuals.prune(entry.task, updates=updates, most=residual_updates)
            for name, fact in {**facts, "sequence": entry.sequence}.items():
                self._put(name, fact)
            sends = entry.attempts
            self._count(
                created=1,
                sends=sends,
                sent_bytes=sends * len(entry.payload),
                received_bytes=received_bytes,
            )

    def waiting(self) -> Waiting:
        """How much waits for receipts."""
        query = "SELECT count(*), coalesce(sum(length(payload)), 0) FROM outbox"
        return Waiting(*self._database.execute(query).fetchone())

    def entry(self, sequence: int) -> OutboxEntry | None:
        """One waiting update."""
        return self._entry("WHERE sequence = ?", sequence)

    def next_entry(self) -> OutboxEntry | None:
        """The waiting update that is to be sent first."""
        return self._entry("ORDER BY next_attempt_at, sequence LIMIT 1")

    def sent(self, entry: OutboxEntry, *, next_attempt_at: float) -> None:
        """One more attempt was made."""
        with self._database.transaction():
            self._database.execute(
                "UPDATE outbox SET attempts = attempts + 1, next_attempt_at = ? WHERE sequence = ?",
                (next_attempt_at, entry.sequence),
            )
            self._count(sends=1, sent_bytes=len(entry.payload))

    def postpone(self, sequence: int, next_attempt_at: float) -> None:
        """Send one waiting update at another time."""
        self._database.execute(
            "UPDATE outbox SET next_attempt_at = ? WHERE sequence = ?", (next_attempt_at, sequence)
        )

    def hasten(self, latest: float, *, most_attempts: int | None = None) -> None:
        """Send at ``latest`` (unix seconds) what waits longer.

        Args:
            latest: unix seconds.
            most_attempts: leave alone what had more attempts so far; None: however many.
        """
        self._database.execute(
            "UPDATE outbox SET next_attempt_at = ?1 "
            "WHERE next_attempt_at > ?1 AND attempts <= coalesce(?2, attempts)",
            (latest, most_attempts),
        )

    def settle(self, sequence: int, counter: str) -> None:
        """Forget a waiting update that was accepted or is a duplicate, and count the outcome."""
        with self._database.transaction():
            self._delete(sequence)
            self._count(**{counter: 1})

    def take_back(self, entry: OutboxEntry, residual: Delta) -> None:
        """Forget a rejected update; ``residual`` has its content and replaces those rows."""
        with self._database.transaction():
            self._delete(entry.sequence)
            self._residuals.write(entry.task, residual, updates=self._created())
            self._count(rejected=1)

    def _created(self) -> int:
        """Updates made so far."""
        query = "SELECT value FROM counters WHERE name = 'created'"
        found = self._database.execute(query).fetchone()
        return int(found[0]) if found else 0

    # Inside a transaction

    def _put(self, name: str, value: Any) -> None:
        self._database.execute(
            "INSERT OR REPLACE INTO state VALUES (?, ?)", (name, json.dumps(value))
        )

    def _count(self, **increments: int) -> None:
        self._database.execute_many(
            "INSERT INTO counters VALUES (?, ?) ON CONFLICT (name) DO UPDATE "
            "SET value = value + excluded.value",
            list(increments.items()),
        )

    def _insert(self, entry: OutboxEntry) -> None:
        self._database.execute(
            "INSERT INTO outbox VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                entry.sequence,
                entry.task,
                entry.payload,
                entry.base_version,
                entry.created_at,
                entry.attempts,
                entry.next_attempt_at,
            ),
        )

    def _entry(self, condition: str, *values: object) -> OutboxEntry | None:
        columns = tuple(OutboxEntry.__dataclass_fields__)
        query = f"SELECT {', '.join(columns)} FROM outbox {condition}"
        row = self._database.execute(query, values).fetchone()
        return None if row is None else OutboxEntry(**dict(zip(columns, row, strict=True)))

    def _delete(self, sequence: int) -> None:
        self._database.execute("DELETE FROM outbox WHERE sequence = ?", (sequence,))


def _packed(context: Mapping[str, int]) -> str | None:
    known = {name: value for name, value in context.items() if value != UNKNOWN}
    return json.dumps(known, separators=(",", ":")) if known else None


def _bytes(value: FloatArray) -> bytes:
    return np.ascontiguousarray(value, np.dtype("<f4")).tobytes()


def _array(raw: bytes, shape: tuple[int, ...]) -> FloatArray:
    return np.frombuffer(raw, np.dtype("<f4")).reshape(shape)
