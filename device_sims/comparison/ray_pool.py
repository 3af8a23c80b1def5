"""Runs side by side on a Ray cluster, each on one of its processors."""

import tempfile
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Any

from device_sims.cluster import connect
from device_sims.comparison.pool import Done, Failed, News, do
from device_sims.comparison.work import Work

__all__ = ["RayPool"]


class RayPool:
    """A task of a cluster for each run; see ``Pool``. How far one is, is not told.

    Args:
        address: see ``connect``; errors as there, too.
    """

    def __init__(self, address: str) -> None:
        self._ray, self._places = connect(address)

    def run(self, works: Iterable[Work]) -> Generator[News, None, None]:
        """See ``Pool``."""
        # What fails once fails again: a run has the same result wherever it is done.
        remote = self._ray.remote(num_cpus=1, max_retries=0)(_do)
        left, busy = iter(works), dict[Any, Work]()
        try:
            while True:
                while len(busy) < self._places and (work := next(left, None)) is not None:
                    busy[remote.remote(work)] = work
                if not busy:
                    return
                (ready,), _ = self._ray.wait(list(busy), num_returns=1)
                yield self._ended(ready, busy.pop(ready))
        finally:
            for reference in busy:
                self._ray.cancel(reference, force=True)
            self._ray.shutdown()

    def _ended(self, reference: Any, work: Work) -> Done | Failed:
        try:
            ended: Done | Failed = self._ray.get(reference)
        except Exception as error:  # Ray raises errors of many unrelated types.
            said = f"{type(error).__name__}: {error}".partition("\n")[0]
            return Failed(work.key, work.title, said, str(error))
        return ended


def _do(work: Work) -> Done | Failed:
    with tempfile.TemporaryDirectory() as folder:
        return do(work, Path(folder))
