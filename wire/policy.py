"""What an operator steers: how a device trains, and how it packs what it learned."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

from wire.checks import Fields
from wire.errors import PolicyError

__all__ = ["MAX_RANK", "CodecMode", "CodecPolicy", "TrainingPolicy"]

MAX_EPOCHS = 100
MAX_BATCH = 65_536
MAX_RANK = 16


class CodecMode(StrEnum):
    """How a device chooses what to send of a delta, and in which form.

    ``auto``: for each tensor the form that takes the fewest bytes for the policy's ``nmse``.
    ``low-rank``: item tables as a product of two small matrices, dense parameters as ``top-k``.
    ``top-k``: the largest entries. ``rows``: the rows of the largest norm, whole.
    ``random-entries``, ``random-rows``: what a seed draws from the whole table, wherever the
    device's own rows are.
    ``raw``, ``half``: everything, as float32 or float16.
    """

    RAW = "raw"
    HALF = "half"
    TOP_K = "top-k"
    ROWS = "rows"
    RANDOM_ENTRIES = "random-entries"
    RANDOM_ROWS = "random-rows"
    LOW_RANK = "low-rank"
    AUTO = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingPolicy:
    """The local update, as a task wants it done.

    Attributes:
        learning_rate: step size of the local SGD, above 0 and at most 1,000.
        epochs: passes over the device's interactions in one local update, 1 to 100.
        batch_size: samples a step, positives and negatives together, 1 to 65,536.
        negatives: sampled negatives a positive, 0 to 1,000.
        interval_s: least time between two local updates of one device, in seconds.
        proximal: strength of the pull back to the base version, 0 to 1,000: mu in FedProx (Li et
            al., MLSys 2020, equation 2), over the federated parameters. 0 for none.
        clip: largest L2 norm of a delta, 0 to 1e9: a longer one is scaled down to it. 0 for none.
    """

    learning_rate: float = 0.04
    epochs: int = 1
    batch_size: int = 64
    negatives: int = 4
    interval_s: float = 60.0
    proximal: float = 0.0
    clip: float = 0.0

    def __post_init__(self) -> None:
        """Refuse values out of range with PolicyError."""
        fields = Fields(self.to_dict(), where="training", error=PolicyError)
        if fields.number("learning_rate", 0.0, 1e3) <= 0.0:
            raise fields.refusal("learning_rate", self.learning_rate, "a number above 0")
        fields.integer("epochs", 1, MAX_EPOCHS)
        fields.integer("batch_size", 1, MAX_BATCH)
        fields.integer("negatives", 0, 1_000)
        fields.number("interval_s", 0.0, 1e7)
        fields.number("proximal", 0.0, 1e3)
        fields.number("clip", 0.0, 1e9)

    def to_dict(self) -> dict[str, Any]:
        """As a JSON-ready map."""
        return _shallow(self)

    @classmethod
    def from_dict(cls, values: object) -> Self:
        """From a decoded map; keys left out take their defaults, unknown ones are refused."""
        return cls(**_known(values, cls, "training"))


@dataclass(frozen=True, slots=True, kw_only=True)
class CodecPolicy:
    """How a device encodes a delta, and what it does with the part that is left out.

    Attributes:
        mode: what is sent and how; each mode reads those of the next seven that it needs.
        nmse: auto: the largest squared error of a tensor relative to its energy, 0 to 1; low-rank:
            no more factors are sent than it takes to get there.
        bits: bits a value, 1, 2, 4 or 8; low-rank takes 2 or more. Raw, half and auto ignore it.
        density: share that is kept: of the touched rows' entries (top-k), of the touched rows
            (rows), of all entries or rows of the tensor (random), above 0 and at most 1.
        rank: low-rank: most factors, 1 to 16.
        row_scales: top-k, rows, random: whether each row has a scale of its own.
        all_rows: whether the rows of which nothing is sent are named all the same. Where a merge
            divides a row's changes by the devices that touched it (row correction ``touched``),
            they count then; left out, the few that do send would move the row too far.
        unbiased: rows, random: rounding at random, and random entries or rows weighed by how
            unlikely they were, so that the mean of what is decoded is the delta. It adds noise that
            error feedback would send around for ever, so it goes without: ``residual_keep`` 0.
        residual_keep: share of a residual that is left one update later, 0 to 1.
        residual_updates: a row's residual is dropped after so many updates that did not touch the
            row, 1 to 1,000,000.
        residual_bound: a row's residual adds at most so many times the root mean square norm of the
            delta's rows, above 0 and at most 1e9.
    """

    mode: CodecMode = CodecMode.AUTO
    nmse: float = 0.05
    bits: int = 4
    density: float = 0.1
    rank: int = 1
    row_scales: bool = False
    all_rows: bool = True
    unbiased: bool = False
    residual_keep: float = 0.9
    residual_updates: int = 100
    residual_bound: float = 10.0

    def __post_init__(self) -> None:
        """Refuse values out of range with PolicyError."""
        fields = Fields(_shallow(self), where="codec", error=PolicyError)
        mode = CodecMode(fields.choice("mode", tuple(CodecMode)))
        fields.number("nmse", 0.0, 1.0)
        fields.choice("bits", (2, 4, 8) if mode is CodecMode.LOW_RANK else (1, 2, 4, 8))
        if fields.number("density", 0.0, 1.0) <= 0.0:
            raise fields.refusal("density", self.density, "a share above 0 and at most 1")
        fields.integer("rank", 1, MAX_RANK)
        fields.boolean("row_scales")
        fields.boolean("all_rows")
        self._check_unbiased(fields, mode)
        fields.number("residual_keep", 0.0, 1.0)
        fields.integer("residual_updates", 1, 1_000_000)
        if fields.number("residual_bound", 0.0, 1e9) <= 0.0:
            raise fields.refusal("residual_bound", self.residual_bound, "a number above 0")
        object.__setattr__(self, "mode", mode)

    def _check_unbiased(self, fields: Fields, mode: CodecMode) -> None:
        if not fields.boolean("unbiased"):
            return
        whole = mode is CodecMode.ROWS and self.density == 1.0
        if not whole and mode not in (CodecMode.RANDOM_ENTRIES, CodecMode.RANDOM_ROWS):
            expected = "false, unless the mode is rows (density 1), random-entries or random-rows"
            raise fields.refusal("unbiased", True, expected)
        if self.residual_keep != 0.0:
            raise fields.refusal("residual_keep", self.residual_keep, "0 with unbiased")

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
