"""What the ledger takes and gives: plain values. Times are seconds since 1970."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from wire.messages import Outcome, Refusal

__all__ = [
    "CompactionRecord",
    "Decision",
    "DeviceStatus",
    "Event",
    "Head",
    "LineageRecord",
    "MergeRecord",
    "NewUpdate",
    "PublicationRecord",
    "Rejection",
    "StoredUpdate",
    "TaskRecord",
    "UpdateKey",
    "VersionRecord",
]


class UpdateKey(NamedTuple):
    """What names an update for ever."""

    task: str
    device: str
    sequence: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRecord:
    """A task and how it is steered at present; policies and rule as JSON-ready maps."""

    task: str
    manifest: bytes
    created_at: float
    paused: bool
    training: Mapping[str, Any]
    codec: Mapping[str, Any]
    rule: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Head:
    """A task's newest state, as far as it decides what updates are good.

    Attributes:
        version: the newest.
        training: the training policy in force, as a JSON-ready map.
        norms: the histogram of the norms accepted lately, counts above 0 by bucket.
    """

    version: int
    training: Mapping[str, Any]
    norms: Mapping[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class NewUpdate:
    """An update that was found good, on its way into the ledger.

    Attributes:
        key: task, device and sequence.
        base_version: the version that it started from.
        examples: training interactions behind it.
        payload: the encoded delta.
        size_bytes: of the whole message, envelope included.
        metrics: metric slug to value.
        received_at: when.
    """

    key: UpdateKey
    base_version: int
    examples: int
    payload: bytes
    size_bytes: int
    metrics: Mapping[str, float]
    received_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredUpdate:
    """What the fold needs of an accepted update."""

    id: int
    device: str
    base_version: int
    examples: int
    payload: bytes
    received_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """A refusal of a named update. It stands: a second delivery gets the same answer."""

    key: UpdateKey
    reason: Refusal
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What was decided on an update before: ACCEPTED, or REJECTED for a reason."""

    outcome: Outcome
    reason: Refusal | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionRecord:
    """One version.

    Attributes:
        task: its task.
        version: the model counter.
        digest: of what made it, see ``aggregator.digest``.
        sha256: digest of the blob with its snapshot; None without one.
        size_bytes: size of that blob.
        rule: the rule that made it, as a JSON-ready map.
        created_at: when.
        updates: how many updates its merge took.
        staleness_total: the sum of their staleness.
        origin: where it comes from if no merge made it, see ``Origin``; None for a merge.
    """

    task: str
    version: int
    digest: str
    rule: Mapping[str, Any]
    created_at: float
    sha256: str | None = None
    size_bytes: int | None = None
    updates: int = 0
    staleness_total: int = 0
    origin: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicationRecord:
    """A version as devices get it.

    Attributes:
        task: its task.
        version: the model counter.
        sha256: digest of the file that devices share.
        size_bytes: size of that file.
        exponents: for each federated parameter, of the power of two that it is rounded to.
        created_at: when.
    """

    task: str
    version: int
    sha256: str
    size_bytes: int
    exponents: Mapping[str, int]
    created_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LineageRecord:
    """A version as it would be without some updates; ``id`` is the ledger's, 0 before.

    Attributes:
        task: its task.
        excluded: what was left out, see ``Exclusion``.
        version: the version whose past was folded again.
        digest: of what made it, see ``aggregator.digest``.
        sha256: digest of the blob with its snapshot.
        size_bytes: size of that blob.
        changes: what is different, as a JSON-ready map; see ``aggregator.refolding``.
        created_at: when.
    """

    task: str
    excluded: Mapping[str, Any]
    version: int
    digest: str
    sha256: str
    size_bytes: int
    changes: Mapping[str, Any]
    created_at: float
    id: int = field(default=0)


@dataclass(frozen=True, slots=True)
class MergeRecord:
    """What a merge adds to the ledger.

    Attributes:
        version: that it makes.
        members: ids of the updates that it takes; their order is that of their ids.
        staleness: how many of them have which staleness.
    """

    version: VersionRecord
    members: Sequence[int]
    staleness: Mapping[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class CompactionRecord:
    """How far the payloads of a task's merged updates were dropped.

    Attributes:
        task: its task.
        dropped_to: those of merges up to this version count as gone; 0 if all are there.
        swept_to: those of merges up to this version are gone indeed.
        warned_to: the operator was told that those up to this version will go.
        warned_at: when that was.
    """

    task: str
    dropped_to: int = 0
    swept_to: int = 0
    warned_to: int = 0
    warned_at: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceStatus:
    """What a device last said of itself."""

    device: str
    state: str
    agent: str
    runtime: str
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that an operator may want to know; ``id`` is the ledger's, 0 before."""

    at: float
    kind: str
    detail: str
    task: str | None = None
    device: str | None = None
    id: int = field(default=0)
