"""What a device must not forget, in a SQLite file: one transaction for each change."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge_agent.database import Database
from edge_agent.durable_state import COUNTERS, DurableState, OutboxEntry, Waiting
from edge_agent.history import UNKNOWN, History
from edge_agent.interactions import Interaction
from edge_agent.residuals import Residuals
from wire.delta import Delta, FloatArray, Tensor
from wire.manifest import ContextField, ParameterSpec
from wire.policy import CodecPolicy

__all__ = ["Store"]


class Store(DurableState):
    """A ``DurableState`` in a SQLite file.

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
        """See ``DurableState``: closes the file."""
        self._database.close()

    # Small facts

    def get(self, name: str) -> Any:
        """See ``DurableState``."""
        row = self._database.execute("SELECT value FROM state WHERE name = ?", (name,)).fetchone()
        return None if row is None else json.loads(row[0])

    def put(self, name: str, value: Any) -> None:
        """See ``DurableState``."""
        with self._database.transaction():
            self._put(name, value)

    def counters(self) -> dict[str, int]:
        """See ``DurableState``."""
        counted = dict(self._database.execute("SELECT name, value FROM counters").fetchall())
        return {name: counted.get(name, 0) for name in COUNTERS}

    # Interactions

    def add_interactions(self, events: Iterable[Interaction]) -> int:
        """See ``DurableState``."""
        statement = "INSERT OR IGNORE INTO interactions (item, at, context) VALUES (?, ?, ?)"
        rows = [(event.item, event.at, _packed(event.context)) for event in events]
        with self._database.transaction():
            return self._database.execute_many(statement, rows).rowcount

    def history(self, fields: Sequence[ContextField] = ()) -> History:
        """See ``DurableState``."""
        columns = "".join(", coalesce(json_extract(context, ?), ?)" for _ in fields)
        query = f"SELECT item{columns} FROM interactions ORDER BY at, id"
        values = tuple(value for field in fields for value in (f'$."{field.name}"', UNKNOWN))
        rows = self._database.execute(query, values).fetchall()
        table = np.array(rows, np.int64).reshape(len(rows), 1 + len(fields))
        return History(np.ascontiguousarray(table[:, 0]), np.ascontiguousarray(table[:, 1:]))

    def count_interactions(self) -> int:
        """See ``DurableState``."""
        return int(self._database.execute("SELECT count(*) FROM interactions").fetchone()[0])

    # Tasks

    def manifest(self, task: str) -> bytes | None:
        """See ``DurableState``."""
        query = "SELECT raw FROM manifests WHERE task = ?"
        row = self._database.execute(query, (task,)).fetchone()
        return None if row is None else bytes(row[0])

    def keep_manifest(self, task: str, raw: bytes) -> None:
        """See ``DurableState``."""
        with self._database.transaction():
            self._database.execute("INSERT OR REPLACE INTO manifests VALUES (?, ?)", (task, raw))

    def private(self, task: str, specs: Sequence[ParameterSpec]) -> dict[str, FloatArray]:
        """See ``DurableState``."""
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
        """See ``DurableState``."""
        if touched is None:
            return self._residuals.read(task, specs)
        return self._residuals.read_touched(
            task, specs, touched, updates=self._created(), policy=policy
        )

    # The outbox

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
        """See ``DurableState``."""
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
        """See ``DurableState``."""
        query = "SELECT count(*), coalesce(sum(length(payload)), 0) FROM outbox"
        return Waiting(*self._database.execute(query).fetchone())

    def entry(self, sequence: int) -> OutboxEntry | None:
        """See ``DurableState``."""
        return self._entry("WHERE sequence = ?", sequence)

    def next_entry(self) -> OutboxEntry | None:
        """See ``DurableState``."""
        return self._entry("ORDER BY next_attempt_at, sequence LIMIT 1")

    def sent(self, entry: OutboxEntry, *, next_attempt_at: float) -> None:
        """See ``DurableState``."""
        with self._database.transaction():
            self._database.execute(
                "UPDATE outbox SET attempts = attempts + 1, next_attempt_at = ? WHERE sequence = ?",
                (next_attempt_at, entry.sequence),
            )
            self._count(sends=1, sent_bytes=len(entry.payload))

    def postpone(self, sequence: int, next_attempt_at: float) -> None:
        """See ``DurableState``."""
        self._database.execute(
            "UPDATE outbox SET next_attempt_at = ? WHERE sequence = ?", (next_attempt_at, sequence)
        )

    def hasten(self, latest: float, *, most_attempts: int | None = None) -> None:
        """See ``DurableState``."""
        self._database.execute(
            "UPDATE outbox SET next_attempt_at = ?1 "
            "WHERE next_attempt_at > ?1 AND attempts <= coalesce(?2, attempts)",
            (latest, most_attempts),
        )

    def settle(self, sequence: int, counter: str) -> None:
        """See ``DurableState``."""
        with self._database.transaction():
            self._delete(sequence)
            self._count(**{counter: 1})

    def take_back(self, entry: OutboxEntry, residual: Delta) -> None:
        """See ``DurableState``."""
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
