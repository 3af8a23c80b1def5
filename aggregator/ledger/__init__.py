"""The durable record: which updates were accepted, and which merge took which."""

from aggregator.ledger.ancestry import (
    Ancestry,
    Exclusion,
    Origin,
    OriginKind,
    Stretch,
    ancestry_of,
    up_to,
)
from aggregator.ledger.database import (
    LedgerError,
    LedgerUnavailableError,
    bring_up,
    connect,
    has_current_tables,
    is_current,
    open_database,
)
from aggregator.ledger.errands import Answer, Errand, Errands
from aggregator.ledger.intake import Intake
from aggregator.ledger.ledger import Ledger
from aggregator.ledger.lock import FileLock, Lock, Watch, lock_of
from aggregator.ledger.past import Past
from aggregator.ledger.records import (
    CompactionRecord,
    Decision,
    DeviceStatus,
    Event,
    Head,
    LineageRecord,
    MergeRecord,
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
    "Ancestry",
    "Answer",
    "CompactionRecord",
    "DecidedMeanwhileError",
    "Decision",
    "DeviceCounts",
    "DeviceReport",
    "DeviceStatus",
    "Errand",
    "Errands",
    "Event",
    "Exclusion",
    "FileLock",
    "Head",
    "Intake",
    "Ledger",
    "LedgerError",
    "LedgerUnavailableError",
    "LineageRecord",
    "Lock",
    "MergeRecord",
    "NewUpdate",
    "Origin",
    "OriginKind",
    "Past",
    "PublicationRecord",
    "Rejection",
    "Reports",
    "StoredUpdate",
    "Stretch",
    "SupersededError",
    "Tally",
    "TaskRecord",
    "UpdateKey",
    "UpdateReport",
    "VersionRecord",
    "VersionReport",
    "Watch",
    "ancestry_of",
    "bring_up",
    "connect",
    "has_current_tables",
    "is_current",
    "lock_of",
    "open_database",
    "up_to",
]
