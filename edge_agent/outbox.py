"""Updates on their way: sent until the aggregator answers, and taken back when it refuses."""

import logging
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

from edge_agent.config import OutboxLimits
from edge_agent.durable_state import DurableState, OutboxEntry, Waiting
from edge_agent.errors import StoreError, TrainingError
from wire import topics
from wire.codec import decode_delta
from wire.delta import Delta, FloatArray, add
from wire.errors import WireError
from wire.manifest import Manifest
from wire.messages import MAX_MESSAGE_BYTES, Outcome, Receipt, Refusal, Update

__all__ = ["Outbox", "Transport"]

logger = logging.getLogger(__name__)

RECEIPT_WAIT_S = 30.0
LONGEST_WAIT_S = 3600.0
DOUBLINGS = 16
RECONNECT_SPREAD_S = 5.0
ATTEMPTS_BEFORE_WARNING = 3


class Transport(Protocol):
    """Publishes with QoS 1, from any thread, without waiting; what cannot be sent is dropped."""

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Hand one message to the network."""
        ...


class Outbox:
    """The updates that wait for receipts.

    Args:
        device: id of the device.
        store: keeps the entries.
        transport: sends them.
        limits: how much may wait.
        clock: unix seconds.
        rng: for jitter.
    """

    def __init__(
        self,
        device: str,
        *,
        store: DurableState,
        transport: Transport,
        limits: OutboxLimits,
        clock: Callable[[], float],
        rng: np.random.Generator,
    ) -> None:
        self._next_due: float | None
        self._topic, self._store, self._transport = topics.updates(device), store, transport
        self._limits, self._clock, self._rng = limits, clock, rng
        self._waiting, self._next_due = Waiting(0, 0), None
        self._refresh()

    @property
    def waiting(self) -> Waiting:
        """How much waits."""
        return self._waiting

    @property
    def full(self) -> bool:
        """Whether the limits leave no room for another update."""
        limits, waiting = self._limits, self._waiting
        return waiting.updates >= limits.max_updates or waiting.size_bytes >= limits.max_bytes

    @property
    def next_due(self) -> float | None:
        """Unix seconds of the next attempt; None when nothing waits.

        Raises:
            StoreError: the clock was set back, and that could not be noted.
        """
        if self._next_due is not None and self._next_due > self._latest():
            self._refresh()
        return self._next_due

    def put(
        self,
        update: Update,
        *,
        online: bool,
        private: Mapping[str, FloatArray],
        residual: Delta,
        residual_updates: int,
        facts: Mapping[str, Any],
        received_bytes: int,
    ) -> int:
        """Make an update happen: one transaction, then the first attempt to send it.

        Args:
            update: what to send.
            online: whether to send it at once.
            private: the new private parameters.
            residual: the new residual of the rows that it touches.
            residual_updates: after so many updates that did not touch a row, its residual goes.
            facts: JSON-ready facts to remember with it.
            received_bytes: downloaded for it.

        Returns:
            Size of the message in bytes.

        Raises:
            StoreError: the transaction failed; nothing has changed.
            TrainingError: the update is too large to be sent; nothing has changed.
        """
        now, message = self._clock(), update.encode()
        if len(message) > MAX_MESSAGE_BYTES:
            raise TrainingError(
                f"the update has {len(message)} bytes, at most {MAX_MESSAGE_BYTES} are allowed; "
                "the task needs a denser codec policy"
            )
        entry = OutboxEntry(
            sequence=update.sequence,
            task=update.task,
            payload=message,
            base_version=update.base_version,
            created_at=now,
            attempts=int(online),
            next_attempt_at=now + self._wait_s(1) if online else now,
        )
        self._store.record_update(
            entry,
            private=private,
            residual=residual,
            residual_updates=residual_updates,
            facts=facts,
            received_bytes=received_bytes,
        )
        try:
            self._refresh()
        except StoreError as error:
            # The update is made all the same: to be looked at again as soon as something is due.
            logger.warning("the outbox could not be read again: %s", error)
            self._next_due = now
        if online:
            self._transport.publish(self._topic, message)
        return len(message)

    def reconnected(self) -> None:
        """A broker that was away may have lost what it had: send again soon, but not all at once.

        Updates that were tried often keep their slow pace: one of them may be the reason why the
        broker closed the connection.
        """
        if self._waiting.updates:
            soon = self._clock() + self._rng.uniform(0.0, RECONNECT_SPREAD_S)
            self._store.hasten(soon, most_attempts=ATTEMPTS_BEFORE_WARNING)
            self._refresh()

    def send_due(self) -> None:
        """Send every update whose time has come."""
        now = self._clock()
        while (due := self.next_due) is not None and due <= now:
            entry = self._store.next_entry()
            if entry is None:
                break
            if entry.attempts >= ATTEMPTS_BEFORE_WARNING:
                logger.warning(
                    "no receipt for update %d after %d attempts; if this goes on, check that the "
                    "broker lets this device publish, and that the aggregator runs",
                    entry.sequence,
                    entry.attempts,
                )
            self._transport.publish(self._topic, entry.payload)
            self._store.sent(entry, next_attempt_at=now + self._wait_s(entry.attempts + 1))
            self._refresh()

    def settle(self, receipt: Receipt) -> None:
        """Act on a receipt. One for an update that does not wait (any more) changes nothing.

        Raises:
            StoreError: the transaction failed; nothing has changed.
        """
        entry = self._store.entry(receipt.sequence)
        if entry is None or entry.task != receipt.task:
            logger.debug("receipt for %d, which does not wait", receipt.sequence)
            return
        if receipt.outcome is not Outcome.REJECTED:
            self._store.settle(entry.sequence, receipt.outcome.name.lower())
        else:
            self._refused(entry, receipt.reason)
        self._refresh()

    def _refused(self, entry: OutboxEntry, reason: Refusal | None) -> None:
        named, advice = (reason.slug, reason.advice) if reason else ("unnamed", "")
        logger.warning("update %d was rejected: %s. %s", entry.sequence, named, advice)
        if reason is not None and reason.momentary:
            self._store.postpone(entry.sequence, self._clock() + self._wait_s(entry.attempts))
            return
        if reason is Refusal.NORM:
            # On top of a later delta it would only be refused again, and that one with it.
            self._store.settle(entry.sequence, "rejected")
            return
        try:
            raw = self._store.manifest(entry.task) or b""
            specs = Manifest.from_json(raw).federated
            content = decode_delta(Update.decode(entry.payload).payload, specs)
        except WireError as error:
            # Only damaged storage leads here; an update that nobody can read must not wait forever.
            logger.error("update %d cannot be taken back: %s", entry.sequence, error)
            self._store.settle(entry.sequence, "rejected")
            return
        before = self._store.residual(entry.task, specs, content)
        self._store.take_back(entry, add(before, content))

    def _wait_s(self, attempts: int) -> float:
        """Time for a receipt to arrive, then exponential back-off with full jitter."""
        back_off = min(RECEIPT_WAIT_S * 2.0 ** min(attempts, DOUBLINGS), LONGEST_WAIT_S)
        return RECEIPT_WAIT_S + float(self._rng.uniform(0.0, back_off))

    def _latest(self) -> float:
        return self._clock() + RECEIPT_WAIT_S + LONGEST_WAIT_S

    def _refresh(self) -> None:
        self._waiting = self._store.waiting()
        if self._waiting.updates:
            # A clock that was set back must not hold any update for years. In the database, for
            # updates made since then come before an old one whose time stands in the far future.
            self._store.hasten(self._latest())
        entry = self._store.next_entry() if self._waiting.updates else None
        self._next_due = entry.next_attempt_at if entry else None
