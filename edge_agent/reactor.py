"""One loop for every socket and timer of a process, whether it runs one agent or thousands."""

import heapq
import itertools
import logging
import os
import selectors
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from edge_agent.workers import Workers

__all__ = ["Reactor", "Timer"]

logger = logging.getLogger(__name__)

T = TypeVar("T")
BLOCKING_THREADS = 8
LONGEST_SLEEP_S = 3600.0


class Timer:
    """A call that is to be made later."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[[], object]) -> None:
        self._call: Callable[[], object] | None = call

    def cancel(self) -> None:
        """Make it do nothing; also after it ran."""
        self._call = None

    def fire(self) -> None:
        """Make the call, unless it was cancelled."""
        if self._call is not None:
            self._call()


class Reactor:
    """Waits for sockets and timers and makes the calls that belong to them, on one thread.

    It uses the system's best selector (epoll on Linux), so that descriptors above 1,023 and
    thousands of connections are no burden. A call that raises is logged; the loop goes on.
    All methods belong to the loop's thread, but for those that say otherwise.
    """

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._soon: deque[Callable[[], object]] = deque()
        self._lock = threading.Lock()
        self._stopping = False
        self._blocking = Workers(BLOCKING_THREADS, "blocking")
        self._wake_read, self._wake_write = os.pipe()
        for end in (self._wake_read, self._wake_write):
            os.set_blocking(end, False)
        self.watch(self._wake_read, selectors.EVENT_READ, self._woken)

    def watch(self, descriptor: int, events: int, call: Callable[[int], object]) -> None:
        """Make a call whenever a descriptor is ready.

        Args:
            descriptor: an open descriptor that is not watched yet.
            events: ``selectors.EVENT_READ``, ``EVENT_WRITE`` or both.
            call: gets the events that are ready.
        """
        self._selector.register(descriptor, events, call)

    def rewatch(self, descriptor: int, events: int) -> None:
        """Wait for other events of a watched descriptor."""
        key = self._selector.get_key(descriptor)
        if key.events != events:
            self._selector.modify(descriptor, events, key.data)

    def unwatch(self, descriptor: int) -> None:
        """Forget a watched descriptor; do this before closing it."""
        self._selector.unregister(descriptor)

    def call_later(self, delay_s: float, call: Callable[[], object]) -> Timer:
        """Make a call once, after at least ``delay_s`` seconds."""
        timer = Timer(call)
        heapq.heappush(self._timers, (time.monotonic() + delay_s, next(self._order), timer))
        return timer

    def call_soon_threadsafe(self, call: Callable[[], object]) -> None:
        """Make a call as soon as possible; from any thread or signal handler."""
        # A deque's append is atomic; a lock here could deadlock with a signal handler's.
        self._soon.append(call)
        with suppress(BlockingIOError):  # A full pipe wakes the loop anyway.
            os.write(self._wake_write, b"\0")

    def call_blocking(self, work: Callable[[], T], then: Callable[[T | Exception], object]) -> None:
        """Do something that blocks on another thread; from any thread.

        Args:
            work: what to do there.
            then: called in the loop with its result, or with the exception that it raised.
        """

        def run() -> None:
            try:
                result: T | Exception = work()
            except Exception as error:
                logger.debug("blocking work failed", exc_info=True)
                # With its frames, an error would keep alive whatever they hold: open sockets.
                result = error.with_traceback(None)
            self.call_soon_threadsafe(lambda: then(result))

        self._blocking.post(run)

    def run(self) -> None:
        """Run the loop on this thread until ``stop``."""
        self._stopping = False
        while not self._stopping:
            for key, events in self._selector.select(self._sleep_s()):
                _call(key.data, events)
            self._run_timers()
            self._run_soon()

    def stop(self) -> None:
        """End the loop after the calls that are due; from any thread or signal handler."""
        self.call_soon_threadsafe(self._stop)

    def close(self) -> None:
        """Give back its descriptors; after ``run`` has returned."""
        self._blocking.stop(0.0)
        # A connection that was made meanwhile is handed to whoever asked for it, who closes it.
        self._run_soon()
        self._selector.close()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _stop(self) -> None:
        self._stopping = True

    def _sleep_s(self) -> float:
        if self._soon:
            return 0.0
        if not self._timers:
            return LONGEST_SLEEP_S
        return min(max(0.0, self._timers[0][0] - time.monotonic()), LONGEST_SLEEP_S)

    def _run_timers(self) -> None:
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            _, _, timer = heapq.heappop(self._timers)
            _call(timer.fire)

    def _run_soon(self) -> None:
        """Run what is there now; what these calls add comes after the sockets had their turn."""
        for _ in range(len(self._soon)):
            _call(self._soon.popleft())

    def _woken(self, _events: int) -> None:
        os.read(self._wake_read, 4096)


def _call(call: Callable[..., object], *arguments: object) -> None:
    try:
        call(*arguments)
    except Exception:
        logger.exception("a call failed in the reactor")
