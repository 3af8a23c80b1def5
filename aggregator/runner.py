"""The engine's thread, and the mailbox through which everything reaches it."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Generic, Protocol, TypeVar

from aggregator.ledger import LedgerUnavailableError
from aggregator.metrics import Instruments
from aggregator.reception import Inbound

__all__ = ["Driven", "Runner"]

MAILBOX_MESSAGES = 2_000
BATCH_MESSAGES = 500
RETRY_AFTER_S = 1.0
CALL_TIMEOUT_S = 30.0
T = TypeVar("T")

_log = logging.getLogger(__name__)


class Driven(Protocol):
    """What needs somebody to hand it messages and tell it that time has passed."""

    @property
    def problem(self) -> str | None:
        """What it cannot do for now and tries again, or None; read from any thread."""

    def start(self) -> None:
        """Called first."""

    def ingest(self, messages: Sequence[Inbound]) -> None:
        """Take a batch; one that raises LedgerUnavailableError is handed in again."""

    def tick(self) -> None:
        """Do what is due."""

    def next_due(self) -> float:
        """When ``tick`` should be called next, in monotonic seconds."""

    def save_all(self) -> None:
        """Called last, after an end in good order."""


D = TypeVar("D", bound=Driven)


class Runner(Generic[D]):
    """Drives an engine from one thread: messages in batches, commands between them.

    Whatever waits in the mailbox when the engine is free becomes the next batch: under load commits
    are shared by many messages, and a lone message does not wait for company.

    Args:
        engine: not started yet; only this thread touches it from then on.
        instruments: where the mailbox's length is shown.
        on_room: called when a full mailbox has room again.
        on_death: called with the error that ended the thread, if one did.
    """

    def __init__(
        self,
        engine: D,
        *,
        instruments: Instruments,
        on_room: Callable[[], None] = lambda: None,
        on_death: Callable[[BaseException], None] = lambda _error: None,
    ) -> None:
        self._engine = engine
        self._on_room, self._on_death = on_room, on_death
        self._messages: deque[Inbound] = deque()
        self._commands: deque[Callable[[], None]] = deque()
        self._arrival = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._problem: str | None = None
        instruments.mailbox.set_function(lambda: len(self._messages))

    @property
    def has_room(self) -> bool:
        """Whether the mailbox takes more. It never refuses; a reader should stop reading."""
        return len(self._messages) < MAILBOX_MESSAGES

    @property
    def problem(self) -> str | None:
        """Why it takes nothing in, or what the engine cannot do for now; None if all is well."""
        return self._problem or self._engine.problem

    def start(self) -> None:
        """Start the engine, then its thread.

        Raises:
            LedgerUnavailableError: the database refuses.
            FoldError: a task has lost every snapshot.
        """
        self._engine.start()
        self._thread.start()

    def stop(self, *, save: bool = True) -> None:
        """Finish the batch in hand and end the thread. What waits was not acknowledged.

        Args:
            save: let the engine save what makes the next start faster.
        """
        with self._arrival:
            self._stopping = True
            self._arrival.notify()
        if self._thread.ident is not None:
            self._thread.join()
            if save and self._problem is None:
                self._engine.save_all()

    def post(self, message: Inbound) -> None:
        """Put a message into the mailbox; never waits."""
        with self._arrival:
            self._messages.append(message)
            self._arrival.notify()

    def post_command(self, command: Callable[[D], object]) -> None:
        """Have a command carried out soon, without waiting for it; it must not raise."""

        def carry_out() -> None:
            command(self._engine)

        with self._arrival:
            self._commands.append(carry_out)
            self._arrival.notify()

    def call(self, command: Callable[[D], T]) -> T:
        """Carry out a command between two batches and wait for its result.

        Raises:
            TimeoutError: the engine is busy or has stopped. The command may still be carried out.
            Exception: whatever the command raises.
        """
        future: Future[T] = Future()

        def carry_out() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(command(self._engine))
                except Exception as error:
                    future.set_exception(error)

        with self._arrival:
            self._commands.append(carry_out)
            self._arrival.notify()
        try:
            return future.result(timeout=CALL_TIMEOUT_S)
        except TimeoutError:
            future.cancel()
            raise

    def _run(self) -> None:
        try:
            while not self._stopping:
                messages = self._next_batch()
                if messages:
                    self._ingest(messages)
                while self._commands:
                    self._commands.popleft()()
                self._engine.tick()
        except BaseException as error:
            _log.exception("the engine has failed")
            self._problem = f"the engine has failed: {error}"
            self._on_death(error)

    def _next_batch(self) -> list[Inbound]:
        with self._arrival:
            while not (self._messages or self._commands or self._stopping):
                wait_s = self._engine.next_due() - time.monotonic()
                if wait_s <= 0:
                    return []
                self._arrival.wait(wait_s)
            was_full = not self.has_room
            count = 0 if self._stopping else min(len(self._messages), BATCH_MESSAGES)
            batch = [self._messages.popleft() for _ in range(count)]
        if was_full and self.has_room:
            self._on_room()
        return batch

    def _ingest(self, messages: list[Inbound]) -> None:
        # The batch stays in hand until the database takes it: nothing is acknowledged before.
        while not self._stopping:
            try:
                self._engine.ingest(messages)
            except LedgerUnavailableError as error:
                _log.error("%d messages wait for the database: %s", len(messages), error)
                self._problem = str(error)
                with self._arrival:
                    self._arrival.wait_for(lambda: self._stopping, RETRY_AFTER_S)
            else:
                self._problem = None
                return
