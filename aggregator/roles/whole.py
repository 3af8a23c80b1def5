"""Everything in one process; the default."""

from contextlib import ExitStack
from operator import methodcaller

from aggregator.api import Core, Readiness
from aggregator.engine import Engine
from aggregator.ledger import Ledger, Watch, bring_up, lock_of
from aggregator.roles.part import Surroundings, take
from aggregator.worker import Worker

__all__ = ["WholePart"]


class WholePart:
    """An engine that takes messages in itself, and the API.

    Args:
        around: what it stands on.
        opened: closes what is opened here.

    Raises:
        ServiceError: the database is in use.
        LedgerError: it cannot be used.
        BlobError: the place for blobs cannot be used.
        OSError: the blobs cannot be reached.
        BrokerError: the TLS files cannot be used.
    """

    def __init__(self, around: Surroundings, opened: ExitStack) -> None:
        self._around = around
        self._watches: list[Watch] = []
        # Before the tables are changed: whoever writes to them has older software.
        self._take_alone("writer", opened)
        if around.database.dialect.name == "postgresql":
            self._take_alone("ingest", opened)
        bring_up(around.database)
        ledger = Ledger(around.database)
        if around.database.dialect.name == "postgresql":
            ledger.take_over()
        self._worker = Worker(
            lambda publish: around.engine(ledger, publish),
            connection=around.connection(),
            instruments=around.instruments,
            announce=Engine.announce_all,
            on_ready=around.on_ready,
            on_death=around.died,
        )
        self.core: Core | None = around.core(self._worker.runner.call)
        around.instruments.merging.set(1)

    def start(self) -> None:
        """Take up the tasks.

        Raises:
            LedgerUnavailableError: the database refuses.
            FoldError: a task has lost every snapshot.
            WireError: a bundle does not make a task.
        """
        self._around.mend_blobs()
        self._worker.start()
        for bundle in self._around.bundles:
            self._worker.runner.call(methodcaller("register", bundle))
        for watch in self._watches:
            watch.start()

    def connect(self) -> None:
        """Begin to connect to the broker."""
        self._worker.connect()

    def stop(self) -> None:
        """Stop taking updates and answer what is in hand."""
        for watch in self._watches:
            watch.stop()
        self._worker.stop()

    def readiness(self) -> Readiness:
        """Whether updates are taken."""
        return Readiness(
            broker=self._worker.broker_problem,
            engine=self._worker.runner.problem,
            database=self._around.probe.problem(),
        )

    def _take_alone(self, name: str, opened: ExitStack) -> None:
        lock = lock_of(self._around.database, name)
        take(lock, "the database")
        opened.callback(lock.release)
        self._watches.append(Watch(lock, on_lost=self._around.superseded))
