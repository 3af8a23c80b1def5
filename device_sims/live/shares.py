"""The processes of a fleet, as their parent sees them."""

import multiprocessing
import time
from collections.abc import Callable, Iterable, Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Any, Self, TypeVar

from device_sims.drive import DescriptorsError
from device_sims.fleet import FleetError
from device_sims.interrupts import sparing
from device_sims.live.share import Begin, Count, Opened, Order, Plan, Told, work
from edge_agent.errors import AgentError

__all__ = ["Shares"]

Answer = TypeVar("Answer")
ANSWER_S = 120.0
STOP_S = 30.0
POLL_S = 0.2
GONE = (
    "a process of the fleet has ended: killed, or this machine is out of memory; what the agents "
    "stored and logged stays in --out until the next run, which begins anew: take fewer data.users "
    "if memory is short"
)


class Shares:
    """Starts a process for each plan, also as a context; none of them outlives it.

    Args:
        plans: what each process runs.
        opened: called with the number of devices that all of them have opened so far.

    Raises:
        FleetError: a process ended before its time; the text says why as far as it is known.
        DescriptorsError: the system allows fewer open files than a process needs.
        AgentError: an agent cannot be opened.
    """

    def __init__(
        self, plans: Sequence[Plan], *, opened: Callable[[int], object] = lambda _devices: None
    ) -> None:
        self._running: list[tuple[BaseProcess, Connection]] = []
        # Not a fork: this process may have threads, and PyTorch.
        context = multiprocessing.get_context("spawn")
        try:
            for plan in plans:
                ours, theirs = context.Pipe()
                # With its parent a daemon is ended, too.
                process = context.Process(target=work, args=(theirs, plan), daemon=True)
                with sparing():
                    process.start()
                theirs.close()
                self._running.append((process, ours))
            self._await_opened([len(plan.numbers) for plan in plans], opened)
        except BaseException:
            self.stop()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def begin(self) -> float:
        """Let the run begin; returns the unix time at which it did."""
        at = time.time()
        for _, pipe in self._running:
            pipe.send(Begin(at))
        return at

    def count(self) -> list[Count]:
        """How far each process is."""
        return self._ask(Order.COUNT, Count)

    def rest(self) -> list[Count]:
        """Let all devices train no more, stay connected, and send what waits."""
        return self._ask(Order.REST, Count)

    def tell(self) -> list[Told]:
        """Everything that each process knows."""
        return self._ask(Order.TELL, Told)

    def finish(self) -> list[Told]:
        """Let all devices say goodbye, and end the processes."""
        return self._ask(Order.STOP, Told)

    def stop(self) -> None:
        """End the processes that are left, without a goodbye."""
        for process, pipe in self._running:
            pipe.close()
            process.join(0.0 if process.exitcode is not None else POLL_S)
            if process.exitcode is None:
                process.kill()
                process.join(STOP_S)
        self._running.clear()

    def _await_opened(self, wanted: Iterable[int], opened: Callable[[int], object]) -> None:
        left = dict(zip((pipe for _, pipe in self._running), wanted, strict=True))
        had = dict.fromkeys(left, 0)
        while any(had[pipe] < count for pipe, count in left.items()):
            for pipe, count in left.items():
                if had[pipe] < count and pipe.poll(POLL_S):
                    had[pipe] = _answer(pipe, Opened).devices
                    opened(sum(had.values()))

    def _ask(self, order: Order, kind: type[Answer]) -> list[Answer]:
        for _, pipe in self._running:
            try:
                pipe.send(order)
            except OSError:
                raise FleetError(GONE) from None
        return [_answered(pipe, kind) for _, pipe in self._running]


def _answered(pipe: Connection, kind: type[Answer]) -> Answer:
    if not pipe.poll(ANSWER_S):
        raise FleetError(f"a process of the fleet has not answered for {ANSWER_S:.0f} s")
    return _answer(pipe, kind)


def _answer(pipe: Connection, kind: type[Answer]) -> Answer:
    try:
        found: Any = pipe.recv()
    except (EOFError, OSError):
        raise FleetError(GONE) from None
    if isinstance(found, AgentError | DescriptorsError | FleetError):
        raise found
    if not isinstance(found, kind):
        raise FleetError(f"a process of the fleet failed: {found!r}")
    return found
