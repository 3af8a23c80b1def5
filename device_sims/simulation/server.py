"""The aggregator of a simulation: the production engine, which can lose its power."""

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import Engine as Database

from aggregator.admission import AdmissionPolicy
from aggregator.blobs import Blobs, FolderBlobs
from aggregator.engine import Engine
from aggregator.full import storage_full
from aggregator.ledger import Ledger, LedgerUnavailableError, Reports, open_database
from aggregator.merging import Rule
from aggregator.metrics import Instruments
from aggregator.patches import Patches
from aggregator.reception import Inbound
from device_sims.scenario import Service
from device_sims.simulation.disk import Disk, Shortage
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
BLOB_WRITES = ("put", "put_file", "upload", "delete")
RETRY_S = 1.0
START_AGAIN_S = 10.0
"""A service that cannot start, for its disk is full, is not started again at once."""


class Server:
    """Starts an engine, feeds it from the network, and starts another when it has died.

    Args:
        folder: for its ledger and blobs.
        bundle: the task.
        rule: how updates are merged.
        service: how often it announces, and what it keeps.
        time: the clock.
        network: to the devices.
        breaker: cuts its power.
        shortage: fills its disks.
        admission: what an update must keep to.
        restart_s: until the next engine starts when one has died.

    Attributes:
        breaker: as given.
        shortage: as given.
        restart_s: as given; may be changed while it runs.
    """

    def __init__(
        self,
        folder: Path,
        bundle: Bundle,
        rule: Rule,
        service: Service,
        *,
        time: VirtualTime,
        network: Network,
        breaker: Breaker,
        shortage: Shortage,
        admission: AdmissionPolicy,
        restart_s: float,
    ) -> None:
        folder.mkdir(parents=True)
        self._folder, self._bundle = folder, bundle
        self._rule, self._service = rule, service
        self._time, self._network, self.breaker = time, network, breaker
        self.shortage, self._admission = shortage, admission
        self._ledger_disk = Disk(shortage, _no_space_for_ledger)
        self._blob_disk = Disk(shortage, _no_space_for_blobs)
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
                ledger=self._fallible(Ledger(self._database), self._ledger_disk, LEDGER_WRITES),
                blobs=self._fallible(
                    FolderBlobs(self._folder / "blobs"), self._blob_disk, BLOB_WRITES
                ),
                publish=self._network.publish,
                clock=self._time,
                instruments=Instruments(),
                admission=self._admission,
                retention=self._service.retention,
                rule=self._rule,
                announce_interval_s=self._service.announce_interval_s,
            )
            engine.start()
            engine.register(self._bundle)
        except PowerCut:
            self._die()
            return
        except (LedgerUnavailableError, OSError):
            self._die(at_least_s=START_AGAIN_S)
            return
        self._engine = engine
        self._network.hand_over()
        self._plan()

    def reconnected(self) -> None:
        """The broker is back, and may have forgotten what it retained."""
        self._do(Engine.announce_all)

    def close(self) -> None:
        """Give the files back."""
        self._database.dispose()

    def _take(self, messages: list[Inbound]) -> None:
        def ingest(engine: Engine) -> None:
            try:
                engine.ingest(messages)
            except LedgerUnavailableError:
                self._network.hand_over_in(RETRY_S)

        self._do(ingest)

    def _tick(self) -> None:
        self._do(Engine.tick)

    def _do(self, work: Callable[[Engine], object]) -> None:
        """Have the engine do something, if it runs; it may die of it."""
        if self._engine is None:
            return
        try:
            work(self._engine)
        except PowerCut:
            self._die()
        self._plan()

    def _plan(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        if self._engine is not None:
            self._alarm = self._time.at(self._engine.next_due(), self._tick)

    def _die(self, *, at_least_s: float = 0.0) -> None:
        self._engine = None
        self._time.after(max(self.restart_s, at_least_s), self.start)

    def _fallible(self, storage: Any, disk: Disk, writes: tuple[str, ...]) -> Any:
        return breaking(breaking(storage, disk, writes), self.breaker, writes)


def _no_space_for_ledger() -> Exception:
    return LedgerUnavailableError(storage_full("the database", "simulated"))


def _no_space_for_blobs() -> Exception:
    return OSError(errno.ENOSPC, "simulated: no space left on device")
