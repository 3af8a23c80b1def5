"""One of several that could merge; one of them does."""

import time
from contextlib import ExitStack
from functools import partial

from aggregator.api import Core, Readiness
from aggregator.ledger import Errands, Ledger, bring_up, has_current_tables, lock_of
from aggregator.merge import Merge
from aggregator.roles.part import ServiceError, Surroundings
from aggregator.succession import Succession
from aggregator.worker import Worker
from wire.bundle import Bundle

__all__ = ["MergePart"]

MERGE_FOR_S = 0.25
"""Nobody waits for the merges here, so commands and announcements need not either."""


class MergePart:
    """Stands by until it has the lock of the writer, then merges.

    Args:
        around: what it stands on.
        opened: closes what is opened here.

    Raises:
        LedgerError: the database cannot be used.
        BlobError: the place for blobs cannot be used.
        OSError: the blobs cannot be reached.
    """

    core: Core | None = None

    def __init__(self, around: Surroundings, opened: ExitStack) -> None:
        self._around = around
        self._worker: Worker[Merge] | None = None
        has_current_tables(
            around.database
        )  # An older one is brought up to date by who has the lock.
        around.connection(listen=False)
        around.mend_blobs()
        lock = lock_of(around.database, "writer")
        opened.callback(lock.release)
        self._succession = Succession(lock, begin=self._begin, on_failure=self._failed)

    def start(self) -> None:
        """Nothing: it cannot be said when its turn comes."""

    def connect(self) -> None:
        """Begin to take turns."""
        self._succession.start()

    def stop(self) -> None:
        """Finish the merge in hand, if it is this one's turn, and let the next one begin."""
        self._succession.stop()

    def readiness(self) -> Readiness:
        """Whether it merges, or would."""
        worker = self._worker
        return Readiness(
            broker=None if worker is None else worker.broker_problem,
            engine=self._succession.problem if worker is None else worker.runner.problem,
            database=self._around.probe.problem(),
            stands_by=worker is None,
        )

    def _begin(self) -> "_Turn":
        around = self._around
        bring_up(around.database)
        ledger = Ledger(around.database)
        ledger.take_over()
        worker = Worker(
            lambda publish: Merge(
                around.engine(ledger, publish, merge_for_s=MERGE_FOR_S),
                errands=Errands(around.database),
                clock=time,
                instruments=around.instruments,
            ),
            connection=around.connection(listen=False),
            instruments=around.instruments,
            announce=lambda merge: merge.engine.announce_all(),
            on_ready=around.on_ready,
            on_death=self._succession.work_failed,
        )
        turn = _Turn(self, worker)
        try:
            worker.start()
            for bundle in around.bundles:
                worker.runner.call(partial(_register, bundle=bundle))
            worker.connect()
        except BaseException:
            turn.stop(orderly=False)
            raise
        self.show(worker)
        return turn

    def show(self, worker: Worker[Merge] | None) -> None:
        """Tell others who merges: this worker, or none of this process."""
        self._worker = worker
        self._around.instruments.merging.set(worker is not None)

    def _failed(self, error: BaseException) -> None:
        self._around.fail(ServiceError(f"the merging has failed: {error}"))


class _Turn:
    """A worker's turn at the merging, from the lock to its loss."""

    def __init__(self, part: MergePart, worker: Worker[Merge]) -> None:
        self._part, self._worker = part, worker

    def stop(self, *, orderly: bool) -> None:
        self._part.show(None)
        self._worker.stop(orderly=orderly)


def _register(merge: Merge, *, bundle: Bundle) -> str:
    return merge.engine.register(bundle)
