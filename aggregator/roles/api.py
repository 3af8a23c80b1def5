"""One of any number that answer HTTP."""

import time
from contextlib import ExitStack

from aggregator.api import Core, Readiness
from aggregator.desk import Desk
from aggregator.ledger import Errands
from aggregator.roles.part import Surroundings

__all__ = ["ApiPart"]


class ApiPart:
    """The API and the dashboard; what they change, a merging process changes for them.

    Args:
        around: what it stands on.

    Raises:
        LedgerError: the database cannot be used.
        BlobError: the place for blobs cannot be used.
        OSError: the blobs cannot be reached.
    """

    def __init__(self, around: Surroundings, _opened: ExitStack) -> None:
        self._around = around
        around.need_current_tables()
        desk = Desk(Errands(around.database), time)
        self.core: Core | None = around.core(desk.call)

    def start(self) -> None:
        """Nothing."""

    def connect(self) -> None:
        """Nothing: it does without the broker."""

    def stop(self) -> None:
        """Nothing."""

    def readiness(self) -> Readiness:
        """Whether requests can be answered."""
        return Readiness(broker=None, engine=None, database=self._around.probe.problem())
