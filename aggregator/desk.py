"""Where a process that does not merge leaves commands for the one that does."""

import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar, cast

from aggregator.clock import Clock
from aggregator.commands import Command, result_of
from aggregator.ledger import Errands, LedgerUnavailableError

__all__ = ["Desk"]

PATIENCE_S = 30.0
LOOK_EVERY_S = 0.05
R = TypeVar("R")


class Desk:
    """Leaves a command in the database and waits for its answer. Safe to use from many threads.

    Args:
        errands: the commands in the database.
        clock: what time it is.
        sleep: waits for so many seconds.
    """

    def __init__(
        self, errands: Errands, clock: Clock, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._errands, self._clock, self._sleep = errands, clock, sleep

    def call(self, command: Command[R]) -> R:
        """Have a command carried out and wait for its result.

        Raises:
            TimeoutError: nobody merges, or not in time. The command may still be carried out, if
                it was begun.
            LedgerUnavailableError: the database refuses. The same holds.
            Exception: whatever the command raises.
        """
        id_ = self._errands.leave(command.kind, command.encode(), at=self._clock.time())
        deadline = self._clock.monotonic() + PATIENCE_S
        while self._clock.monotonic() < deadline:
            answer = self._errands.answer(id_)
            if answer is not None:
                return cast(R, result_of(answer))
            self._sleep(LOOK_EVERY_S)
        with suppress(LedgerUnavailableError):
            self._errands.withdraw(id_)
        raise TimeoutError(f"no aggregator has carried out {command.kind}; is one merging?")
