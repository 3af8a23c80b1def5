"""The documents of the API, as OpenAPI describes them."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from aggregator.ledger import TaskRecord, VersionReport
from wire.manifest import Manifest

__all__ = [
    "DeviceDocument",
    "EventDocument",
    "LineageDocument",
    "NewTaskDocument",
    "NewVersionDocument",
    "PatchDocument",
    "RetentionDocument",
    "RollbackDocument",
    "SteeringDocument",
    "TaskDetailDocument",
    "TaskDocument",
    "UpdateDocument",
    "VersionDocument",
]


class TaskDocument(BaseModel):
    """A task in the list of tasks."""

    task: str = Field(description="32 hex characters: the start of its manifest's SHA-256")
    name: str
    recommender: str
    version: int = Field(description="the newest version")
    published: int = Field(description="the newest that devices were told about")
    paused: bool
    created_at: float

    @staticmethod
    def fields_of(record: TaskRecord, version: int, published: int) -> dict[str, Any]:
        """What a task's documents have in common."""
        manifest = Manifest.from_json(record.manifest)
        return {
            "task": record.task,
            "name": manifest.name,
            "recommender": manifest.recommender,
            "version": version,
            "published": published,
            "paused": record.paused,
            "created_at": record.created_at,
        }


class TaskDetailDocument(TaskDocument):
    """A task and how it is run."""

    training: dict[str, Any] = Field(description="the training policy in force")
    codec: dict[str, Any] = Field(description="the codec policy in force")
    rule: dict[str, Any] = Field(description="the merge rule in force")


class NewTaskDocument(BaseModel):
    """The name of a task."""

    task: str


class SteeringDocument(BaseModel):
    """What to change; what is left out stays. A map changes the keys that it has."""

    model_config = ConfigDict(extra="forbid")

    paused: bool | None = Field(None, description="true: devices stop training")
    training: dict[str, Any] | None = Field(
        None, examples=[{"learning_rate": 0.05}], description="keys of the training policy"
    )
    codec: dict[str, Any] | None = Field(
        None, examples=[{"bits": 4}], description="keys of the codec policy"
    )
    rule: dict[str, Any] | None = Field(
        None,
        examples=[{"buffer_size": 40}, {"kind": "fadas", "delay_threshold": 4}],
        description="keys of the merge rule; what comes with a new kind or optimizer starts at "
        "its defaults",
    )


class VersionDocument(BaseModel):
    """One version. What devices measured on it is the mean of their reports, null without any."""

    version: int
    created_at: float
    updates: int = Field(description="how many updates its merge took")
    mean_staleness: float | None = Field(description="of those updates")
    digest: str = Field(description="of what made it: its rule and all that its merge changed")
    sha256: str | None = Field(description="the blob with its snapshot; null without one")
    size_bytes: int | None = Field(description="of that blob")
    rule: dict[str, Any] = Field(description="the rule that made it")
    origin: dict[str, Any] | None = Field(
        description="where it comes from, if no merge made it: kind rollback or promote, of which "
        "version, without which updates"
    )
    hr_at_10: float | None
    ndcg_at_10: float | None
    eval_loss: float | None

    @classmethod
    def of(cls, report: VersionReport) -> "VersionDocument":
        """From the ledger's report."""
        version, quality = report.version, report.quality
        return cls(
            version=version.version,
            created_at=version.created_at,
            updates=version.updates,
            mean_staleness=version.staleness_total / version.updates if version.updates else None,
            digest=version.digest,
            sha256=version.sha256,
            size_bytes=version.size_bytes,
            rule=dict(version.rule),
            origin=None if version.origin is None else dict(version.origin),
            hr_at_10=quality.get("hr_at_10"),
            ndcg_at_10=quality.get("ndcg_at_10"),
            eval_loss=quality.get("eval_loss"),
        )


class RollbackDocument(BaseModel):
    """Where to go back to."""

    model_config = ConfigDict(extra="forbid")

    version: int = Field(ge=0, le=2**53 - 1, description="the older version")


class NewVersionDocument(BaseModel):
    """The number of a new version."""

    version: int


class LineageDocument(BaseModel):
    """A version as it would be without some updates."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    version: int = Field(description="the version whose past was folded again")
    excluded: dict[str, Any] = Field(
        description="what was left out: updates of these devices, or of all if there is none, "
        "received at or after since and before until"
    )
    changes: dict[str, Any] = Field(
        description="how many updates of how many versions were left out, which versions lost all "
        "(the first thousand), and for each parameter its distance and cosine to the version's"
    )
    digest: str
    sha256: str = Field(description="the blob with its snapshot")
    size_bytes: int = Field(description="of that blob")
    created_at: float


class RetentionDocument(BaseModel):
    """What of a task's past can still be made again or left out, and what is lost next."""

    sentence: str = Field(description="all of it in one line")
    keep_payload_days: float = Field(description="days after their merge; 0 for ever")
    dropped_to: int = Field(description="payloads of merges up to this version are gone")
    from_start: int | None = Field(
        description="the oldest version that can be made again from the bundle, and all after it; "
        "null where payloads were dropped"
    )
    from_snapshot: int | None = Field(
        description="the oldest version from which on all can be made again"
    )
    snapshots: list[int] = Field(description="older versions that one can go back to")
    fixed_to: int = Field(description="no update of merges up to this version can be left out")
    oldest_update: int | None = Field(description="id of the oldest that can be left out")
    oldest_update_at: float | None
    next_loss_to: int | None = Field(description="payloads of merges up to it go next")
    next_loss_at: float | None = Field(description="not before; null if none will go")
    next_loss_updates: int
    kept_because: str | None = Field(description="what keeps payloads from being dropped")


class PatchDocument(BaseModel):
    """What leads to a published version; a blob."""

    model_config = ConfigDict(from_attributes=True)

    base: int | None = Field(description="the published version to add it to; null for zeros")
    sha256: str
    size_bytes: int


class UpdateDocument(BaseModel):
    """An accepted update."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    device: str
    sequence: int
    base_version: int
    merged_in: int | None = Field(description="the version that took it; null while it waits")
    examples: int
    size_bytes: int = Field(description="of the message, envelope included")
    metrics: dict[str, float]
    received_at: float


class DeviceDocument(BaseModel):
    """A device that takes part in a task, or in none yet."""

    model_config = ConfigDict(from_attributes=True)

    device: str
    state: str = Field(description="online, offline, or unknown without a status")
    last_seen: float
    accepted: int
    rejected: int
    duplicate: int
    bytes: int = Field(description="of its accepted updates")
    last_version: int | None = Field(description="newest base version of its updates")
    agent: str | None
    runtime: str | None


class EventDocument(BaseModel):
    """Something that an operator may want to know."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    at: float
    kind: str
    task: str | None
    device: str | None
    detail: str
