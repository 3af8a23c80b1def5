"""What the parts have in common, and what they stand on."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from sqlalchemy import Engine as Database

from aggregator.api import Call, Core, Readiness
from aggregator.blobs import Blobs, open_blobs
from aggregator.engine import Engine, Publish
from aggregator.enrolment import Enrolment
from aggregator.ledger import Ledger, LedgerError, Lock, Reports, has_current_tables
from aggregator.metrics import Instruments
from aggregator.patches import Patches
from aggregator.probe import Probe
from aggregator.settings import Settings
from aggregator.worker import Connection
from wire.bundle import Bundle

__all__ = ["Part", "ServiceError", "Surroundings", "take"]


class ServiceError(Exception):
    """The service cannot start or go on; the message says why.

    Attributes:
        usage: what it was told is wrong, rather than what it met.
    """

    def __init__(self, message: str, *, usage: bool = False) -> None:
        super().__init__(message)
        self.usage = usage


class Part(Protocol):
    """What a role does."""

    @property
    def core(self) -> Core | None:
        """What its API stands on; None without one."""

    def start(self) -> None:
        """Do what must be done before others may see the process."""

    def connect(self) -> None:
        """Begin to work with others."""

    def stop(self) -> None:
        """End the work in good order."""

    def readiness(self) -> Readiness:
        """Whether it can do its work, and if not, why."""
        ...


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What a part stands on.

    Attributes:
        settings: what the process is told; the broker has a client id.
        database: not looked at yet.
        instruments: what is counted.
        bundles: checked bundles to serve as tasks.
        on_ready: called whenever the connection to the broker stands.
        fail: ends the service.
    """

    settings: Settings
    database: Database
    instruments: Instruments
    bundles: tuple[Bundle, ...]
    on_ready: Callable[[], None]
    fail: Callable[[ServiceError], None]

    @cached_property
    def blobs(self) -> Blobs:
        """Bundles and snapshots; raises BlobError, or OSError if they cannot be reached."""
        return open_blobs(
            self.settings.blobs or str(self.settings.data / "blobs"),
            cache=self.settings.data / "blobs-cache",
            cache_bytes=self.settings.blobs_cache_bytes,
            redirect=self.settings.blobs_redirect,
        )

    @cached_property
    def enrolled(self) -> Callable[[], frozenset[str] | None]:
        """Tells which devices may take part; raises EnrolmentError if the file cannot be used."""
        file = self.settings.devices_file
        return (lambda: None) if file is None else Enrolment(file).devices

    @cached_property
    def probe(self) -> Probe:
        """Whether the database can be written."""
        return Probe(Ledger(self.database).check, time)

    def engine(self, ledger: Ledger, publish: Publish, *, merge_for_s: float = math.inf) -> Engine:
        """An engine as the settings say."""
        return Engine(
            ledger=ledger,
            blobs=self.blobs,
            publish=publish,
            clock=time,
            instruments=self.instruments,
            admission=self.settings.admission,
            retention=self.settings.retention,
            rule=self.settings.rule,
            announce_interval_s=self.settings.announce_interval_s,
            enrolled=self.enrolled,
            merge_for_s=merge_for_s,
        )

    def connection(self, *, share: str | None = None, listen: bool = True) -> Connection:
        """A connection as the settings say."""
        if self.settings.broker is None:
            raise ServiceError("broker is missing", usage=True)
        return Connection(
            broker=self.settings.broker,
            share=share,
            listen=listen,
            on_refused=lambda problem: self.fail(ServiceError(problem, usage=True)),
        )

    def core(self, call: Call) -> Core:
        """What the API stands on, with what carries out its commands."""
        reports = Reports(self.database)
        return Core(
            reports=reports,
            blobs=self.blobs,
            patches=Patches(self.settings.data / "patches", reports=reports, blobs=self.blobs),
            call=call,
            now=time.time,
            api_token=self.settings.api_token,
            retention=self.settings.retention,
        )

    def mend_blobs(self) -> None:
        """Put the bundles' files where they are missing or damaged."""
        # Before the tasks are taken up: a lost version 0 can be had from nowhere else.
        for bundle in self.bundles:
            for entry in bundle.manifest.files:
                self.blobs.put_file(bundle.path(entry), entry.sha256)

    def died(self, error: BaseException) -> None:
        """End the service, because its core has."""
        self.fail(ServiceError(f"the engine has failed: {error}"))

    def superseded(self) -> None:
        """End the service, because its lock has gone to another."""
        self.fail(ServiceError("another aggregator has taken over the database"))

    def need_current_tables(self) -> None:
        """Refuse a database that only the writer may bring up to date.

        Raises:
            LedgerError: it is older, or newer, or cannot be reached.
        """
        if not has_current_tables(self.database):
            raise LedgerError(
                "the database has an older form; start an aggregator of the role merge or all, "
                "which brings it up to date, and then this one again"
            )


def take(lock: Lock, what: str) -> None:
    """Two writers on one ledger would each believe to be alone.

    Raises:
        ServiceError: another has it.
    """
    if not lock.acquire():
        raise ServiceError(f"{what} is in use by another aggregator", usage=True)
