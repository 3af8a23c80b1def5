"""A simulated device's storage: what an agent must not forget, in memory."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from device_sims.simulation.memory_residuals import MemoryResiduals
from edge_agent.durable_state import COUNTERS, DurableState, OutboxEntry, Waiting
from edge_agent.errors import StoreError
from edge_agent.history import UNKNOWN, History
from edge_agent.interactions import Interaction
from wire.delta import Delta, FloatArray, Tensor
from wire.manifest import ContextField, ParameterSpec
from wire.policy import CodecPolicy

__all__ = ["MemoryStore"]


class MemoryStore(DurableState):
    """A ``DurableState`` that lives as long as the object.

    What it holds is small and can be pickled, so that a device that waits can lie on a disk.
    """

    def __init__(self) -> None:
        self._facts: dict[str, str] = {}
        self._counters: dict[str, int] = {}
        # In the order of arrival, which a dict keeps.
        self._interactions: dict[tuple[float, int], dict[str, int] | None] = {}
        self._manifests: dict[str, bytes] = {}
        self._private: dict[tuple[str, str], bytes] = {}
        self._outbox: dict[int, OutboxEntry] = {}
        self._residuals = MemoryResiduals()

    def copy(self) -> "MemoryStore":
        """A backup: it stays as it is, whatever is written here later."""
        copied = MemoryStore()
        copied._facts, copied._counters = dict(self._facts), dict(self._counters)
        copied._interactions, copied._manifests = dict(self._interactions), dict(self._manifests)
        copied._private, copied._outbox = dict(self._private), dict(self._outbox)
        copied._residuals = self._residuals.copy()
        return copied

    def close(self) -> None:
        """See ``DurableState``: there is nothing to give back."""

    # Small facts

    def get(self, name: str) -> Any:
        """See ``DurableState``."""
        fact = self._facts.get(name)
        return None if fact is None else json.loads(fact)

    def put(self, name: str, value: Any) -> None:
        """See ``DurableState``."""
        self._facts[name] = json.dumps(value)

    def counters(self) -> dict[str, int]:
        """See ``DurableState``."""
        return {name: self._counters.get(name, 0) for name in COUNTERS}

    # Interactions

    def add_interactions(self, events: Iterable[Interaction]) -> int:
        """See ``DurableState``."""
        given = [(event.at, event.item, _known(event.context)) for event in events]
        before = len(self._interactions)
        for at, item, context in given:
            self._interactions.setdefault((at, item), context)
        return len(self._interactions) - before

    def history(self, fields: Sequence[ContextField] = ()) -> History:
        """See ``DurableState``."""
        # Sorting is stable: ties in time keep the order of arrival.
        ordered = sorted(self._interactions.items(), key=lambda entry: entry[0][0])
        names = [field.name for field in fields]
        context = [
            [known.get(name, UNKNOWN) for name in names] if known else [UNKNOWN] * len(names)
            for _, known in ordered
        ]
        return History(
            np.array([item for (_, item), _ in ordered], np.int64),
            np.array(context, np.int64).reshape(len(ordered), len(names)),
        )

    def count_interactions(self) -> int:
        """See ``DurableState``."""
        return len(self._interactions)

    # Tasks

    def manifest(self, task: str) -> bytes | None:
        """See ``DurableState``."""
        return self._manifests.get(task)

    def keep_manifest(self, task: str, raw: bytes) -> None:
        """See ``DurableState``."""
        self._manifests[task] = raw

    def private(self, task: str, specs: Sequence[ParameterSpec]) -> dict[str, FloatArray]:
        """See ``DurableState``."""
        found = {spec: self._private.get((task, spec.name)) for spec in specs}
        return {
            spec.name: np.frombuffer(raw, np.float32).reshape(spec.shape)
            for spec, raw in found.items()
            if raw is not None
        }

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
            task, specs, touched, updates=self._created, policy=policy
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
        if entry.sequence in self._outbox:
            raise StoreError(f"an update {entry.sequence} waits already")
        texts = {name: json.dumps(fact) for name, fact in facts.items()}
        self._outbox[entry.sequence] = entry
        for name, value in private.items():
            self._private[entry.task, name] = value.astype(np.float32).tobytes()
        updates = self._created + 1
        self._residuals.write(entry.task, residual, updates=updates)
        self._residuals.prune(entry.task, updates=updates, most=residual_updates)
        self._facts.update(texts, sequence=json.dumps(entry.sequence))
        sends = entry.attempts
        self._count(
            created=1,
            sends=sends,
            sent_bytes=sends * len(entry.payload),
            received_bytes=received_bytes,
        )

    def waiting(self) -> Waiting:
        """See ``DurableState``."""
        waiting = self._outbox.values()
        return Waiting(len(waiting), sum(len(entry.payload) for entry in waiting))

    def entry(self, sequence: int) -> OutboxEntry | None:
        """See ``DurableState``."""
        return self._outbox.get(sequence)

    def next_entry(self) -> OutboxEntry | None:
        """See ``DurableState``."""
        return min(
            self._outbox.values(),
            key=lambda entry: (entry.next_attempt_at, entry.sequence),
            default=None,
        )

    def sent(self, entry: OutboxEntry, *, next_attempt_at: float) -> None:
        """See ``DurableState``."""
        waiting = self._outbox.get(entry.sequence)
        if waiting is not None:
            self._outbox[entry.sequence] = replace(
                waiting, attempts=waiting.attempts + 1, next_attempt_at=next_attempt_at
            )
        self._count(sends=1, sent_bytes=len(entry.payload))

    def postpone(self, sequence: int, next_attempt_at: float) -> None:
        """See ``DurableState``."""
        if sequence in self._outbox:
            self._due(sequence, next_attempt_at)

    def hasten(self, latest: float, *, most_attempts: int | None = None) -> None:
        """See ``DurableState``."""
        for entry in list(self._outbox.values()):
            often = most_attempts is not None and entry.attempts > most_attempts
            if entry.next_attempt_at > latest and not often:
                self._due(entry.sequence, latest)

    def settle(self, sequence: int, counter: str) -> None:
        """See ``DurableState``."""
        self._outbox.pop(sequence, None)
        self._count(**{counter: 1})

    def take_back(self, entry: OutboxEntry, residual: Delta) -> None:
        """See ``DurableState``."""
        self._outbox.pop(entry.sequence, None)
        self._residuals.write(entry.task, residual, updates=self._created)
        self._count(rejected=1)

    @property
    def _created(self) -> int:
        """Updates made so far."""
        return self._counters.get("created", 0)

    # Inside a transaction

    def _count(self, **increments: int) -> None:
        for name, value in increments.items():
            self._counters[name] = self._counters.get(name, 0) + value

    def _due(self, sequence: int, at: float) -> None:
        self._outbox[sequence] = replace(self._outbox[sequence], next_attempt_at=at)


def _known(context: Mapping[str, int]) -> dict[str, int] | None:
    return {name: value for name, value in context.items() if value != UNKNOWN} or None
