"""What a person sees while a fleet trains: a live line on a terminal, and a line a pass."""

import sys
import time
from types import TracebackType
from typing import Self

from tqdm import tqdm

from device_sims.fleet import Fleet
from device_sims.report import Round

__all__ = ["Progress"]


class Progress:
    """A bar over the fleet's updates, as a context; none where stderr is not a terminal."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet, self._started = fleet, time.monotonic()
        self._bar = tqdm(
            total=fleet.total,
            unit="update",
            desc="training",
            dynamic_ncols=True,
            disable=not sys.stderr.isatty(),
        )
        fleet.on_update = self._bar.update

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.close()

    def round(self, entry: Round) -> None:
        """A pass was evaluated."""
        quality = entry.validation
        self._bar.write(
            f"pass {entry.number:>3} of {self._fleet.passes}   version {entry.version:>5}   "
            f"validation HR@10 {quality.hr_at_10:.3f}   NDCG@10 {quality.ndcg_at_10:.3f}   "
            f"{time.monotonic() - self._started:>5.0f} s",
            file=sys.stdout,
        )
        sys.stdout.flush()
