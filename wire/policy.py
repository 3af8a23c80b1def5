"""What an operator steers: how a device trains, and how it packs what it learned."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

from wire.checks import Fields
from wire.errors import PolicyError

__all__ = ["CodecMode", "CodecPolicy", "TrainingPolicy"]

MAX_EPOCHS = 100
MAX_BATCH = 65_536


class CodecMode(StrEnum):
    """How the item rows of a delta are encoded."""

    RAW = "raw"
    TOP_K = "top-k"
    LOW_RANK = "low-rank"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingPolicy:
    """The local update, as a task wants it done.

    Attributes:
        learning_rate: step size of the local SGD, above 0 and at most 1,000.
        epochs: passes over the device's interactions in one local update, 1 to 100.
        batch_size: samples a step, positives and negatives together, 1 to 65,536.
        negatives: sampled negatives a positive, 0 to 1,000.
        interval_s: least time between two local updates of one device, in seconds.
    """

    learning_rate: float = 0.04
    epochs: int = 1
    batch_size: int = 64
    negatives: int = 4
    interval_s: float = 60.0

    def __post_init__(self) -> None:
        """Refuse values out of range with PolicyError."""
        fields = Fields(self.to_dict(), where="training", error=PolicyError)
        if fields.number("learning_rate", 0.0, 1e3) <= 0.0:
            raise fields.refusal("learning_rate", self.learning_rate, "a number above 0")
        fields.integer("epochs", 1, MAX_EPOCHS)
        fields.integer("batch_size", 1, MAX_BATCH)
        fields.integer("negatives", 0, 1_000)
        fields.number("interval_s", 0.0, 1e7)

    def to_dict(self) -> dict[str, Any]:
        """As a JSON-ready map."""
        return _shallow(self)

    @classmethod
    def from_dict(cls, values: object) -> Self:
        """From a decoded map; keys left out take their defaults, unknown ones are refused."""
        return cls(**_known(values, cls, "training"))


@dataclass(frozen=True, slots=True, kw_only=True)
class CodecPolicy:
    """How a device encodes a delta.

    Attributes:
        mode: ``low-rank`` (factors), ``top-k`` (largest entries of the touched rows) or ``raw``.
        bits: bits a value: 1, 2, 4 or 8. Raw ignores it; low-rank takes 2 or more.
        density: share of the touched rows' entries that top-k keeps, in (0, 1].
        rank: rank of the low-rank factors, 1 to 64.
    """

    mode: CodecMode = CodecMode.LOW_RANK
    bits: int = 4
    density: float = 0.1
    rank: int = 1

    def __post_init__(self) -> None:
        """Refuse values out of range with PolicyError."""
        fields = Fields(_shallow(self), where="codec", error=PolicyError)
        mode = CodecMode(fields.choice("mode", tuple(CodecMode)))
        fields.choice("bits", (2, 4, 8) if mode is CodecMode.LOW_RANK else (1, 2, 4, 8))
        if fields.number("density", 0.0, 1.0) <= 0.0:
            raise fields.refusal("density", self.density, "a share above 0 and at most 1")
        fields.integer("rank", 1, 64)
        object.__setattr__(self, "mode", mode)

    def to_dict(self) -> dict[str, Any]:
        """As a JSON-ready map."""
        return {**_shallow(self), "mode": self.mode.value}

    @classmethod
    def from_dict(cls, values: object) -> Self:
        """From a decoded map; keys left out take their defaults, unknown ones are refused."""
        return cls(**_known(values, cls, "codec"))


def _shallow(policy: TrainingPolicy | CodecPolicy) -> dict[str, Any]:
    # `asdict` copies deeply, which shows where thousands of announcements are read a second.
    return {name: getattr(policy, name) for name in policy.__dataclass_fields__}


def _known(values: object, policy: type[Any], where: str) -> Mapping[str, Any]:
    if not isinstance(values, Mapping):
        raise PolicyError(f"{where} is {values!r:.80}; expected a map")
    for key in values:
        if key not in policy.__dataclass_fields__:
            allowed = ", ".join(policy.__dataclass_fields__)
            raise PolicyError(f"{where} has an unknown key {key!r}; it takes {allowed}")
    return values
