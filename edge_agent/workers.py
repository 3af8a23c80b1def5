"""Threads for what may take long, and queues that keep each agent's work in order."""

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable

__all__ = ["Serial", "Workers"]

logger = logging.getLogger(__name__)

Call = Callable[[], object]


class Workers:
    """A fixed number of threads that run whatever is posted, started when first needed.

    They are daemons: a process that must end does not wait for a download or a long training;
    what an agent keeps is safe at any moment.

    Args:
        threads: how many calls may run at once, at least 1.
        name: prefix of the threads' names.
    """

    def __init__(self, threads: int, name: str = "worker") -> None:
        self._calls: queue.SimpleQueue[Call | None] = queue.SimpleQueue()
        self._limit, self._name = threads, name
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._pending = 0

    def post(self, call: Call) -> None:
        """Run a call on one of the threads; an exception is logged."""
        with self._lock:
            self._pending += 1
            if len(self._threads) < min(self._limit, self._pending):
                name = f"{self._name}-{len(self._threads)}"
                thread = threading.Thread(target=self._run, name=name, daemon=True)
                self._threads.append(thread)
                thread.start()
        self._calls.put(call)

    def stop(self, timeout_s: float) -> bool:
        """End the threads after what was posted so far.

        Returns:
            Whether all of them ended in time; False means that one is still at work.
        """
        deadline = time.monotonic() + timeout_s
        for _ in self._threads:
            self._calls.put(None)
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            try:
                call()
            except Exception:
                logger.exception("a call failed on a worker thread")
            with self._lock:
                self._pending -= 1


class Serial:
    """Calls that run one after another, in the order posted, on whichever thread is free."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self._calls: deque[Call] = deque()
        self._lock = threading.Lock()

    def post(self, call: Call) -> None:
        """Run a call after all those posted before it; an exception is logged."""
        with self._lock:
            self._calls.append(call)
            if len(self._calls) > 1:
                return
        self._workers.post(self._run_first)

    def _run_first(self) -> None:
        try:
            self._calls[0]()
        finally:
            # The call leaves the queue only when done: until then, others must not start a run.
            with self._lock:
                self._calls.popleft()
                more = bool(self._calls)
            if more:
                self._workers.post(self._run_first)
