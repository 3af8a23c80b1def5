"""The four messages, as CBOR maps (RFC 8949) with integer keys and a format version each.

Key 0 is the format version, and key 1 the task (16 bytes) in every message that belongs to one.
There is no field for an interaction or a private parameter.

Every ``decode`` takes at most MAX_PARSING_BYTES of memory, whatever it is given; the delta of an
update stays encoded.
"""

import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from types import MappingProxyType
from typing import Any, Self, TypeVar

import cbor2
import numpy as np

from wire.checks import Fields
from wire.errors import MessageError, PolicyError
from wire.policy import CodecMode, CodecPolicy, TrainingPolicy

__all__ = [
    "MAX_MESSAGE_BYTES",
    "MAX_PARSING_BYTES",
    "MESSAGE_VERSION",
    "Announcement",
    "Metric",
    "Outcome",
    "Receipt",
    "Refusal",
    "Status",
    "StatusState",
    "Update",
]

MESSAGE_VERSION = 1
MAX_MESSAGE_BYTES = 900_000
MAX_PARSING_BYTES = 64 << 20
"""Decoding a message takes at most so much memory, whatever the bytes are (64 MiB)."""
MAX_COUNTER = (1 << 53) - 1
MAX_BLOB_BYTES = 1 << 40
SMALL_MAP, MAX_ENTRIES = 0xA0, 16
MAX_DEPTH = 2

P = TypeVar("P", TrainingPolicy, CodecPolicy)


class Metric(IntEnum):
    """Numbers that a device may report about itself; nothing else of its data is sent."""

    HR_AT_10 = 0
    NDCG_AT_10 = 1
    EVAL_LOSS = 2
    TRAIN_LOSS = 3

    @property
    def slug(self) -> str:
        """The name in JSON."""
        return self.name.lower()


class Outcome(IntEnum):
    """The aggregator's word on an update."""

    ACCEPTED = 0
    DUPLICATE = 1
    REJECTED = 2


class Refusal(IntEnum):
    """Why an update was rejected. The numbers are on the wire: never reuse one."""

    MALFORMED = 1
    UNKNOWN_TASK = 2
    UNKNOWN_DEVICE = 3
    OVERSIZE = 4
    WRONG_SHAPE = 5
    NOT_FINITE = 6
    TOO_STALE = 7
    FROM_THE_FUTURE = 8
    NORM = 9
    RATE = 10
    PAUSED = 11
    STORAGE_FULL = 12

    @property
    def slug(self) -> str:
        """The name in JSON, metrics and logs."""
        return self.name.lower().replace("_", "-")

    @property
    def advice(self) -> str:
        """A sentence that says what to do."""
        return _ADVICE[self]

    @property
    def momentary(self) -> bool:
        """Whether the update itself may be fine.

        The device keeps such an update and sends it again, and another answer may come. All other
        refusals stand: the device takes the content back, so the same sequence is never accepted.
        """
        return self in _MOMENTARY


_ADVICE = {
    Refusal.MALFORMED: "The message is not an update of this format version; update the agent.",
    Refusal.UNKNOWN_TASK: "No such task here; wait for an announcement and start from it.",
    Refusal.UNKNOWN_DEVICE: "This device is not enrolled; ask the operator, and keep the update.",
    Refusal.OVERSIZE: "The message is larger than the limit; use a denser codec policy.",
    Refusal.WRONG_SHAPE: "The delta does not fit the manifest; fetch the bundle again.",
    Refusal.NOT_FINITE: "The delta holds NaN or infinity; lower the learning rate.",
    Refusal.TOO_STALE: "The base version is too old; fetch the newest version and train again.",
    Refusal.FROM_THE_FUTURE: "The base version does not exist yet; fetch the announced one.",
    Refusal.NORM: "The delta is larger than the task allows; lower the learning rate.",
    Refusal.RATE: "Updates come faster than the task allows; keep the update and wait.",
    Refusal.PAUSED: "The task is paused; keep the update and wait.",
    Refusal.STORAGE_FULL: "The aggregator has no space; the update is sent again later.",
}
_MOMENTARY = frozenset({Refusal.UNKNOWN_DEVICE, Refusal.RATE, Refusal.PAUSED, Refusal.STORAGE_FULL})


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """One device's encoded delta.

    The device is not in the message: it is the topic's, which the broker's ACL protects.

    Attributes:
        task: 32 hex characters.
        sequence: the device's own counter; (device, sequence) names the update for ever.
        base_version: the version that training started from.
        examples: training interactions behind the delta (positives, not samples).
        payload: the delta, encoded by ``wire.codec``.
        metrics: finite numbers about the device's own evaluation, each optional.
    """

    task: str
    sequence: int
    base_version: int
    examples: int
    payload: bytes
    metrics: Mapping[Metric, float] = field(default_factory=dict)

    def encode(self) -> bytes:
        """CBOR bytes. Metrics go as half-precision floats: three digits are enough to plot."""
        metrics = {int(metric): _half(value) for metric, value in sorted(self.metrics.items())}
        body = {
            1: bytes.fromhex(self.task),
            2: self.sequence,
            3: self.base_version,
            4: self.examples,
            5: metrics,
            6: self.payload,
        }
        return _dump(body)

    @classmethod
    def decode(cls, raw: bytes) -> Self:
        """Parse and check; raises MessageError."""
        fields = _load(raw, "update")
        update = cls(
            task=fields.octets(1, 16).hex(),
            sequence=fields.integer(2, 1, MAX_COUNTER),
            base_version=fields.integer(3, 0, MAX_COUNTER),
            examples=fields.integer(4, 0, MAX_COUNTER),
            metrics=_metrics(fields.take(5)),
            payload=fields.octets(6),
        )
        fields.done()
        return update


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """The aggregator's durable word on one update.

    Attributes:
        task: 32 hex characters.
        sequence: of the update it answers.
        outcome: accepted, duplicate or rejected.
        reason: why, when rejected; otherwise None.
        version: the aggregator's version when it answered.
    """

    task: str
    sequence: int
    outcome: Outcome
    version: int
    reason: Refusal | None = None

    def encode(self) -> bytes:
        """CBOR bytes."""
        body: dict[int, object] = {
            1: bytes.fromhex(self.task),
            2: self.sequence,
            3: int(self.outcome),
            4: self.version,
        }
        if self.reason is not None:
            body[5] = int(self.reason)
        return _dump(body)

    @classmethod
    def decode(cls, raw: bytes) -> Self:
        """Parse and check; raises MessageError."""
        fields = _load(raw, "receipt")
        outcome = Outcome(fields.choice(3, tuple(Outcome)))
        rejected = outcome is Outcome.REJECTED
        receipt = cls(
            task=fields.octets(1, 16).hex(),
            sequence=fields.integer(2, 1, MAX_COUNTER),
            outcome=outcome,
            version=fields.integer(4, 0, MAX_COUNTER),
            reason=Refusal(fields.choice(5, tuple(Refusal))) if rejected else None,
        )
        fields.done()
        return receipt


@dataclass(frozen=True, slots=True, kw_only=True)
class Announcement:
    """The newest version of a task and how to train on it; retained by the broker, under 2 kB.

    Attributes:
        task: 32 hex characters.
        version: the published version.
        sha256: hex digest of the blob with its federated parameters.
        size_bytes: size of that blob.
        paused: devices keep what they have and train nothing.
        training: the policy in force; it overrides the manifest's.
        codec: likewise.
    """

    task: str
    version: int
    sha256: str
    size_bytes: int
    paused: bool
    training: TrainingPolicy
    codec: CodecPolicy

    def encode(self) -> bytes:
        """CBOR bytes."""
        t, c = self.training, self.codec
        body = {
            1: bytes.fromhex(self.task),
            2: self.version,
            3: bytes.fromhex(self.sha256),
            4: self.size_bytes,
            5: self.paused,
            6: list(t.to_dict().values()),
            7: [tuple(CodecMode).index(c.mode), *list(c.to_dict().values())[1:]],
        }
        return _dump(body)

    @classmethod
    def decode(cls, raw: bytes) -> Self:
        """Parse and check; raises MessageError."""
        fields = _load(raw, "announcement")
        announcement = cls(
            task=fields.octets(1, 16).hex(),
            version=fields.integer(2, 0, MAX_COUNTER),
            sha256=fields.octets(3, 32).hex(),
            size_bytes=fields.integer(4, 0, MAX_BLOB_BYTES),
            paused=fields.boolean(5),
            training=_policy(TrainingPolicy, fields.array(6, 7)),
            codec=_policy(CodecPolicy, _named_mode(fields.array(7, 11))),
        )
        fields.done()
        return announcement


class StatusState(StrEnum):
    """Whether a device is connected."""

    ONLINE = "online"
    OFFLINE = "offline"


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """A device's state, retained; the last will says offline.

    Attributes:
        state: online or offline.
        agent: the agent's version, for example ``0.1.0``.
        runtime: the runtime it trains with, for example ``onnx``.
    """

    state: StatusState
    agent: str
    runtime: str

    def encode(self) -> bytes:
        """CBOR bytes."""
        return _dump({2: tuple(StatusState).index(self.state), 3: self.agent, 4: self.runtime})

    @classmethod
    def decode(cls, raw: bytes) -> Self:
        """Parse and check; raises MessageError."""
        fields = _load(raw, "status")
        status = cls(
            state=tuple(StatusState)[fields.integer(2, 0, len(StatusState) - 1)],
            agent=fields.text(3, 40),
            runtime=fields.text(4, 40),
        )
        fields.done()
        return status


class _NoTags(Mapping[int, Callable[[Any], Any]]):
    """A decoder for every tag there is, which refuses it."""

    def __getitem__(self, tag: int) -> Callable[[Any], Any]:
        raise MessageError(f"tag {tag} is not used here")

    def __iter__(self) -> Iterator[int]:
        return iter(())

    def __len__(self) -> int:
        return 0


def _dump(body: Mapping[int, object]) -> bytes:
    return cbor2.dumps({0: MESSAGE_VERSION, **body}, canonical=True)


def _load(raw: bytes, what: str) -> Fields:
    if len(raw) > MAX_MESSAGE_BYTES:
        raise MessageError(f"{what} has {len(raw)} bytes; at most {MAX_MESSAGE_BYTES}")
    # A short flat map without tags: no bignums, and no keys made to hash all alike.
    if not raw or not SMALL_MAP <= raw[0] <= SMALL_MAP + MAX_ENTRIES:
        raise MessageError(f"{what} does not begin as a map of at most {MAX_ENTRIES} entries")
    stream = io.BytesIO(raw)
    try:
        body = cbor2.load(
            stream,
            semantic_decoders=_NoTags(),
            max_depth=MAX_DEPTH,
            allow_duplicate_keys=False,
        )
    except Exception as error:  # A decoder for untrusted bytes may fail in any way it likes.
        raise MessageError(f"{what} is not CBOR: {error}") from None
    if stream.read(1):
        raise MessageError(f"{what} has trailing bytes")
    if not all(type(key) is int for key in body):
        raise MessageError(f"{what} has a key that is not an integer")
    fields = Fields(body, where=what, error=MessageError)
    version = fields.take(0)
    if type(version) is not int or version != MESSAGE_VERSION:
        raise fields.refusal(0, version, f"format version {MESSAGE_VERSION}")
    return fields


def _half(value: float) -> float:
    return float(np.float16(np.clip(value, -65_504, 65_504)))


def _metrics(values: object) -> Mapping[Metric, float]:
    fields = Fields(values, where="update.5", error=MessageError)
    if not all(type(key) is int for key in values):  # type: ignore[attr-defined]
        raise MessageError("update.5 has a key that is not an integer")
    known = [metric for metric in Metric if metric in (values or ())]  # type: ignore[operator]
    metrics = {metric: fields.number(metric, -65_504, 65_504) for metric in known}
    fields.done()
    return MappingProxyType(metrics)


def _policy(policy: Callable[..., P], values: list[Any]) -> P:
    names = policy.__dataclass_fields__  # type: ignore[attr-defined]
    if len(values) != len(names):
        raise MessageError(f"announcement has a policy of {len(values)} values, not {len(names)}")
    try:
        return policy(**dict(zip(names, values, strict=True)))
    except PolicyError as error:
        raise MessageError(f"announcement.{error}") from None


def _named_mode(values: list[Any]) -> list[Any]:
    modes = tuple(CodecMode)
    if not values or type(values[0]) is not int or not 0 <= values[0] < len(modes):
        raise MessageError("announcement names a codec mode that this version does not know")
    return [modes[values[0]], *values[1:]]
