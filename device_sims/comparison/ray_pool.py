"""Runs side by side on a Ray cluster, each on one of its processors."""

import tempfile
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Any

from device_sims.comparison.pool import Done, Failed, News, do
from device_sims.comparison.work import Work
from device_sims.scenario import ScenarioError

__all__ = ["RayPool"]


class RayPool:
    """A task of a cluster for each run; see ``Pool``. How far one is, is not told.

    Its machines need this package. Equal machines give equal bits; others may not.

    Args:
        address: of the cluster, as ``ray.init`` takes it; ``local`` starts one on this machine.

    Raises:
        ScenarioError: Ray is not installed, or the cluster cannot be reached.
    """

    def __init__(self, address: str) -> None:
        try:
            import ray
        except ImportError:
            raise ScenarioError(
                "Ray is not installed; install it with: pip install 'rivulet[ray]'"
            ) from None
        self._ray: Any = ray
        try:
            ray.init(
                address=address, log_to_driver=False, include_dashboard=False, logging_level="ERROR"
            )
        except Exception as error:  # Ray raises errors of many unrelated types.
            raise ScenarioError(f"no Ray cluster at {address!r}: {error}") from None

    def run(self, works: Iterable[Work]) -> Generator[News, None, None]:
        """See ``Pool``."""
        places = max(1, int(self._ray.cluster_resources().get("CPU", 1)))
        # What fails once fails again: a run has the same result wherever it is done.
        remote = self._ray.remote(num_cpus=1, max_retries=0)(_do)
        left, busy = iter(works), dict[Any, Work]()
        try:
            while True:
                while len(busy) < places and (work := next(left, None)) is not None:
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
