"""One works, others stand by: who holds the lock begins the work, and ends it when it is lost.

It is a small state machine that looks at the lock when it is told to; a thread tells it twice a
second. Work is never resumed but begun anew from what is durable, because between losing a lock and
getting it back somebody else may have worked.
"""

import logging
import threading
from collections.abc import Callable
from typing import Protocol

from aggregator.ledger import LedgerUnavailableError, Lock, SupersededError

__all__ = ["Succession", "Work"]

INTERVAL_S = 0.5

_log = logging.getLogger(__name__)


class Work(Protocol):
    """What the one does."""

    def stop(self, *, orderly: bool) -> None:
        """End it; ``orderly`` if what it has in hand may still be written."""


class Succession:
    """Takes its turn at the work.

    Args:
        lock: held by the one who works.
        begin: begins the work; called while the lock is held. It may raise LedgerUnavailableError,
            SupersededError or OSError, then it is tried again, by whoever gets the lock.
        on_failure: called once with any other error that ``begin`` raises or the work meets; there
            is no further turn.
    """

    def __init__(
        self,
        lock: Lock,
        *,
        begin: Callable[[], Work],
        on_failure: Callable[[BaseException], None],
    ) -> None:
        self._lock, self._begin, self._on_failure = lock, begin, on_failure
        self._over = threading.Event()
        self._look = threading.Event()
        self._thread = threading.Thread(target=self._run, name="succession", daemon=True)
        self._failure: BaseException | None = None
        self.work: Work | None = None
        self.problem: str | None = None

    def start(self) -> None:
        """Begin to take turns, from a thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the work in good order, if it is this one's turn, and let the next one begin."""
        self._over.set()
        self._look.set()
        if self._thread.ident is not None:
            self._thread.join()
        self._end(orderly=True)

    def work_failed(self, error: BaseException) -> None:
        """To be called by the work, from any thread, when it cannot go on."""
        self._failure = error
        self._look.set()

    def step(self) -> None:
        """Look at the lock, and begin or end the work accordingly."""
        if self.work is None:
            self._try()
        elif self._failure is not None:
            self._give_up(self._failure)
        elif not self._lock.held():
            _log.warning("the lock on the merging is lost; standing by")
            self._end(orderly=False)

    def _try(self) -> None:
        self._failure = None
        try:
            if not self._lock.acquire():
                self.problem = None
                return
            self.work = self._begin()
            self.problem = None
            _log.info("this aggregator merges from now on")
        except (LedgerUnavailableError, SupersededError, OSError) as error:
            _log.error("the merging cannot begin yet: %s", error)
            self.problem = str(error)
            self._lock.release()
        except Exception as error:
            self._give_up(error)

    def _give_up(self, error: BaseException) -> None:
        self._end(orderly=False)
        if isinstance(error, SupersededError):
            _log.warning("%s; standing by", error)
            return
        self.problem = f"the merging has failed: {error}"
        self._over.set()
        self._on_failure(error)

    def _end(self, *, orderly: bool) -> None:
        work, self.work = self.work, None
        if work is not None:
            work.stop(orderly=orderly)
        self._lock.release()

    def _run(self) -> None:
        while not self._over.is_set():
            self.step()
            self._look.wait(INTERVAL_S)
            self._look.clear()
