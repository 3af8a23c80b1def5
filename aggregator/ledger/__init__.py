"""The durable record: which updates were accepted, and which merge took which."""

from aggregator.ledger.database import (
    LedgerError,
    LedgerUnavailableError,
    bring_up,
    connect,
    is_current,
    open_database,
)
from aggregator.ledger.errands import Answer, Errand, Errands
from aggregator.ledger.intake import Intake
from aggregator.ledger.ledger import Ledger
from aggregator.ledger.lock import FileLock, Lock, Watch, lock_of
from aggregator.ledger.records import (
    Decision,
    DeviceStatus,
    Event,
    Head,
    NewUpdate,
    PublicationRecord,
    Rejection,
    StoredUpdate,
    TaskRecord,
    UpdateKey,
    VersionRecord,
)
from aggregator.ledger.reports import (
    DeviceCounts,
    DeviceReport,
    Reports,
    Tally,
    UpdateReport,
    VersionReport,
)
from aggregator.ledger.term import SupersededError
from aggregator.ledger.turns import DecidedMeanwhileError

__all__ = [
    "Answer",
    "DecidedMeanwhileError",
    "Decision",
    "DeviceCounts",
    "DeviceReport",
    "DeviceStatus",
    "Errand",
    "Errands",
    "Event",
    "FileLock",
    "Head",
    "Intake",
    "Ledger",
    "LedgerError",
    "LedgerUnavailableError",
    "Lock",
    "NewUpdate",
    "PublicationRecord",
    "Rejection",
    "Reports",
    "StoredUpdate",
    "SupersededError",
    "Tally",
    "TaskRecord",
    "UpdateKey",
    "UpdateReport",
    "VersionRecord",
    "VersionReport",
    "Watch",
    "bring_up",
    "connect",
    "is_current",
    "lock_of",
    "open_database",
]
