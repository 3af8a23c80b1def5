"""Pools that do the work of simulated devices: this process, others on this machine, or Ray."""

import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import cache
from itertools import cycle
from multiprocessing import get_context

from threadpoolctl import threadpool_limits

from device_sims.cluster import connect
from device_sims.fleet import FleetError
from device_sims.simulation.training import Kit, Pool, Result, Worker
from edge_agent.trainer import Work

__all__ = ["LocalPool", "ProcessPool", "RayPool", "open_pool"]

GONE = (
    "a process that trains devices has ended: killed, or this machine is out of memory; nothing of "
    "this run is kept, so run it again, with fewer --processes if memory is short: the result will "
    "be the same"
)


class LocalPool:
    """Does a batch in this process when its first result is asked for."""

    def __init__(self, kit: Kit) -> None:
        self._worker = Worker(kit)

    def submit(self, batch: Sequence[Work]) -> Callable[[], list[Result]]:
        """See ``Pool``."""
        return cache(lambda: self._worker.do(batch))

    def close(self) -> None:
        """See ``Pool``."""


class ProcessPool:
    """Does batches in processes of this machine, which end with this one.

    Args:
        kit: for each of them.
        processes: how many. If one of them is killed, results raise FleetError.
    """

    def __init__(self, kit: Kit, processes: int) -> None:
        # Not forked: this process has threads, and whatever they hold would be held for ever.
        self._executor = ProcessPoolExecutor(processes, get_context("spawn"), _open_worker, (kit,))

    def submit(self, batch: Sequence[Work]) -> Callable[[], list[Result]]:
        """See ``Pool``."""
        with _alive():
            future: Future[list[Result]] = self._executor.submit(_do, batch)

        def result() -> list[Result]:
            with _alive():
                return future.result()

        return result

    def close(self) -> None:
        """See ``Pool``."""
        self._executor.shutdown(cancel_futures=True)


@contextmanager
def _alive() -> Iterator[None]:
    try:
        yield
    except BrokenProcessPool:
        raise FleetError(GONE) from None


class RayPool:
    """Does batches on a Ray cluster, one worker for each of its processors.

    Args:
        kit: for each worker.
        address: see ``connect``; errors as there, too.
    """

    def __init__(self, kit: Kit, address: str) -> None:
        self._ray, processors = connect(address)
        actor, shared = self._ray.remote(num_cpus=1)(_RayWorker), self._ray.put(kit)
        self._next = cycle([actor.remote(shared) for _ in range(processors)])

    def submit(self, batch: Sequence[Work]) -> Callable[[], list[Result]]:
        """See ``Pool``."""
        reference = next(self._next).do.remote(batch)
        return cache(lambda: self._ray.get(reference))

    def close(self) -> None:
        """See ``Pool``."""
        self._ray.shutdown()


@contextmanager
def open_pool(kit: Kit, *, processes: int = 1, ray: str | None = None) -> Iterator[Pool]:
    """A pool, closed when the block ends.

    Args:
        kit: for its workers.
        processes: 1 for this process.
        ray: address of a Ray cluster, which is used in their place.
    """
    pool: Pool
    if ray is not None:
        pool = RayPool(kit, ray)
    elif processes > 1:
        pool = ProcessPool(kit, processes)
    else:
        pool = LocalPool(kit)
    try:
        yield pool
    finally:
        pool.close()


class _RayWorker:
    def __init__(self, kit: Kit) -> None:
        self._limit = threadpool_limits(1, user_api="blas")
        self._worker = Worker(kit)

    def do(self, batch: Sequence[Work]) -> list[Result]:
        return self._worker.do(batch)


_worker: Worker


def _open_worker(kit: Kit) -> None:
    global _worker
    # Ctrl-C is for the process that has the clock: it ends the run and wants the last results.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threadpool_limits(1, user_api="blas")
    _worker = Worker(kit)


def _do(batch: Sequence[Work]) -> list[Result]:
    return _worker.do(batch)
