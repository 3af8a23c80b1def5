"""The aggregator of a simulation: the production engine, which can lose its power."""

from pathlib import Path

from sqlalchemy import Engine as Database

from aggregator.admission import AdmissionPolicy
from aggregator.blobs import Blobs, FolderBlobs
from aggregator.engine import Engine
from aggregator.ledger import Ledger, LedgerUnavailableError, Reports, open_database
from aggregator.merging import Rule
from aggregator.metrics import Instruments
from aggregator.patches import Patches
from aggregator.reception import Inbound
from aggregator.retention import Retention
from device_sims.simulation.network import Network
from device_sims.simulation.power import Breaker, PowerCut, breaking
from device_sims.simulation.virtual_time import Alarm, VirtualTime
from wire.bundle import Bundle

__all__ = ["Server"]

LEDGER_WRITES = (
    "create_task",
    "take_in",
    "add_version",
    "add_merges",
    "add_snapshot",
    "forget_snapshot",
    "add_publication",
    "forget_publications",
    "add_event",
    "tidy",
)
BLOB_WRITES = ("upload", "delete")
ANNOUNCE_INTERVAL_S = 1.0


class Server:
    """Starts an engine, feeds it from the network, and starts another when it has died.

    Args:
        folder: for its ledger and blobs.
        bundle: the task.
        rule: how updates are merged.
        time: the clock.
        network: to the devices.
        breaker: cuts its power.
        restart_s: until the next engine starts when one has died.

    Attributes:
        breaker: as given.
        restart_s: as given; may be changed while it runs.
    """

    def __init__(
        self,
        folder: Path,
        bundle: Bundle,
        rule: Rule,
        *,
        time: VirtualTime,
        network: Network,
        breaker: Breaker,
        restart_s: float,
    ) -> None:
        folder.mkdir(parents=True)
        self._folder, self._bundle, self._rule = folder, bundle, rule
        self._time, self._network, self.breaker = time, network, breaker
        self._database: Database = open_database(f"sqlite:///{folder / 'ledger.db'}")
        self.reports = Reports(self._database)
        self.blobs: Blobs = FolderBlobs(folder / "blobs")
        self.patches = Patches(folder / "patches", reports=self.reports, blobs=self.blobs)
        self._engine: Engine | None = None
        self._alarm: Alarm | None = None
        self.restart_s = restart_s
        network.to_aggregator = self._take

    @property
    def ledger(self) -> Ledger:
        """The ledger, for whoever audits it: nothing breaks here."""
        return Ledger(self._database)

    def start(self) -> None:
        """Start an engine on what the one before left; it may die in the attempt."""
        try:
            engine = Engine(
                ledger=breaking(Ledger(self._database), self.breaker, LEDGER_WRITES),
                blobs=breaking(FolderBlobs(self._folder / "blobs"), self.breaker, BLOB_WRITES),
                publish=self._network.publish,
                clock=self._time,
                instruments=Instruments(),
                admission=AdmissionPolicy(),
                retention=Retention(),
                rule=self._rule,
                announce_interval_s=ANNOUNCE_INTERVAL_S,
            )
            engine.start()
            engine.register(self._bundle)
        except PowerCut:
            self._die()
            return
        self._engine = engine
        self._network.hand_over()
        self._plan()

    def close(self) -> None:
        """Give the files back."""
        self._database.dispose()

    def _take(self, messages: list[Inbound]) -> None:
        if self._engine is None:
            return
        try:
            self._engine.ingest(messages)
        except LedgerUnavailableError:
            self._time.after(1.0, self._network.hand_over)
        except PowerCut:
            self._die()
        self._plan()

    def _tick(self) -> None:
        if self._engine is None:
            return
        try:
            self._engine.tick()
        except PowerCut:
            self._die()
        self._plan()

    def _plan(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        if self._engine is not None:
            self._alarm = self._time.at(self._engine.next_due(), self._tick)

    def _die(self) -> None:
        self._engine = None
        self._time.after(self.restart_s, self.start)
