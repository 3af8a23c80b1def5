"""One of several that take updates in."""

import time
from contextlib import ExitStack

from aggregator.api import Core, Readiness
from aggregator.ingest import Ingest
from aggregator.ledger import Ledger, Watch, lock_of
from aggregator.roles.part import Surroundings, take
from aggregator.worker import Worker

__all__ = ["IngestPart"]


class IngestPart:
    """Takes its share of the messages.

    Args:
        around: what it stands on.
        opened: closes what is opened here.

    Raises:
        ServiceError: an aggregator of the role all uses the database.
        LedgerError: the database cannot be used.
        BrokerError: the TLS files cannot be used.
    """

    core: Core | None = None

    def __init__(self, around: Surroundings, opened: ExitStack) -> None:
        self._around = around
        lock = lock_of(around.database, "ingest", shared=True)
        take(lock, "the database")
        opened.callback(lock.release)
        self._watch = Watch(lock, on_lost=around.superseded)
        around.need_current_tables()
        self._worker = Worker(
            lambda publish: Ingest(
                ledger=Ledger(around.database),
                publish=publish,
                clock=time,
                instruments=around.instruments,
                admission=around.settings.admission,
                enrolled=around.enrolled,
            ),
            connection=around.connection(share=around.settings.share),
            instruments=around.instruments,
            announce=lambda _: None,
            on_ready=around.on_ready,
            on_death=around.died,
        )

    def start(self) -> None:
        """Learn of the tasks; raises LedgerUnavailableError if the database refuses."""
        self._worker.start()
        self._watch.start()

    def connect(self) -> None:
        """Begin to connect to the broker."""
        self._worker.connect()

    def stop(self) -> None:
        """Stop taking updates and answer what is in hand."""
        self._watch.stop()
        self._worker.stop()

    def readiness(self) -> Readiness:
        """Whether updates are taken."""
        return Readiness(
            broker=self._worker.broker_problem,
            engine=self._worker.runner.problem,
            database=self._around.probe.problem(),
        )
