"""What a rule can be told: for each kind its parameters, their ranges and their defaults."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Generic, Protocol, TypeVar

from aggregator.merging.choices import (
    Kind,
    Optimizer,
    RowCorrection,
    Staleness,
    StalenessScope,
    Weighting,
)
from wire.checks import Fields
from wire.errors import WireError

__all__ = ["Option", "RuleError", "check_together", "options"]

MAX_BUFFER = 100_000
MAX_KRUM_BUFFER = 500
MAX_STALENESS = 1_000_000


class RuleError(WireError):
    """A merge rule is refused; the message names the key, the value and what was expected."""


class Option(Protocol):
    """One key of a rule."""

    @property
    def default(self) -> Any:
        """Its value when none is given."""

    def read(self, key: str, value: object) -> Any:
        """The value that is meant; raises RuleError."""


W = TypeVar("W", bound=StrEnum)


@dataclass(frozen=True, slots=True)
class _Word(Generic[W]):
    allowed: tuple[W, ...]
    default: W

    def read(self, key: str, value: object) -> W:
        found = _fields(key, value).choice(key, self.allowed)
        return next(word for word in self.allowed if word == found)


@dataclass(frozen=True, slots=True)
class _Integer:
    low: int
    high: int
    default: int

    def read(self, key: str, value: object) -> int:
        return _fields(key, value).integer(key, self.low, self.high)


@dataclass(frozen=True, slots=True)
class _Number:
    low: float
    high: float
    default: float
    above: bool = False

    def read(self, key: str, value: object) -> float:
        fields = _fields(key, value)
        found = fields.number(key, self.low, self.high)
        if self.above and found <= self.low:
            raise fields.refusal(key, value, f"above {self.low:g} and at most {self.high:g}")
        return found


def _fields(key: str, value: object) -> Fields:
    return Fields({key: value}, where="rule", error=RuleError)


_BUFFER: Mapping[str, Option] = {
    "buffer_size": _Integer(1, MAX_BUFFER, 20),
    "max_wait_s": _Number(0.01, 1e7, 30.0),
}
_UNIFORM = _Word((Weighting.UNIFORM,), Weighting.UNIFORM)
_WEIGHTING = _Word(tuple(Weighting), Weighting.UNIFORM)
_STALENESS: Mapping[str, Option] = {
    "staleness": _Word(tuple(Staleness), Staleness.POLYNOMIAL),
    "staleness_scope": _Word(tuple(StalenessScope), StalenessScope.MODEL),
}
_PARTICIPATION: Mapping[str, Option] = {
    "participation_exponent": _Number(0.0, 2.0, 0.0),
    "participation_limit": _Number(1.0, 1000.0, 4.0),
}
_ROBUST: Mapping[str, Option] = {
    "row_clip": _Number(0.0, 1e9, 0.0),
    "trim": _Number(0.0, 0.49, 0.0),
    "krum_byzantine": _Integer(0, MAX_KRUM_BUFFER // 2 - 2, 0),
}
_CORRECTION = _Word(tuple(RowCorrection), RowCorrection.NONE)
_UNCORRECTED = _Word((RowCorrection.NONE,), RowCorrection.NONE)
_OPTIMIZER = _Word(tuple(Optimizer), Optimizer.SGD)
_SGD = _Word((Optimizer.SGD,), Optimizer.SGD)

_BY_KIND: Mapping[Kind, Mapping[str, Option]] = {
    Kind.FEDAVG: {
        **_BUFFER,
        "weighting": _WEIGHTING,
        **_ROBUST,
        "row_correction": _CORRECTION,
        "optimizer": _OPTIMIZER,
    },
    Kind.FEDASYNC: {
        "buffer_size": _Integer(1, 1, 1),
        "max_wait_s": _BUFFER["max_wait_s"],
        "weighting": _UNIFORM,
        **_STALENESS,
        "row_correction": _UNCORRECTED,
        "optimizer": _SGD,
    },
    Kind.FEDBUFF: {
        **_BUFFER,
        "weighting": _WEIGHTING,
        **_STALENESS,
        **_PARTICIPATION,
        **_ROBUST,
        "row_correction": _CORRECTION,
        "optimizer": _OPTIMIZER,
    },
    Kind.FADAS: {
        **_BUFFER,
        "weighting": _WEIGHTING,
        "delay_threshold": _Integer(0, MAX_STALENESS, 1),
        **_PARTICIPATION,
        **_ROBUST,
        "row_correction": _CORRECTION,
        "optimizer": _Word(tuple(Optimizer), Optimizer.AMSGRAD),
    },
    Kind.CA2FL: {
        **_BUFFER,
        "weighting": _UNIFORM,
        "row_correction": _UNCORRECTED,
        "optimizer": _OPTIMIZER,
    },
}

_RATE = _Number(0.0, 100.0, 1.0, above=True)
_MIXING_RATE = _Number(0.0, 1.0, 1.0, above=True)
_ADAPTIVE: Mapping[str, Option] = {
    "server_learning_rate": _Number(0.0, 100.0, 0.01, above=True),
    "beta_1": _Number(0.0, 0.9999, 0.9),
    "beta_2": _Number(0.0, 0.9999, 0.99),
    "adaptivity": _Number(1e-6, 1.0, 1e-3),
}
_BY_WORD: Mapping[str, Mapping[StrEnum, Mapping[str, Option]]] = {
    "staleness": {
        Staleness.CONSTANT: {},
        Staleness.POLYNOMIAL: {"staleness_exponent": _Number(0.0, 10.0, 0.5)},
        Staleness.HINGE: {
            "staleness_slope": _Number(0.0, 1000.0, 10.0, above=True),
            "staleness_delay": _Integer(0, MAX_STALENESS, 4),
        },
    },
    "row_correction": {
        RowCorrection.NONE: {},
        RowCorrection.TOUCHED: {},
        RowCorrection.HEAT: {"heat_limit": _Number(1.0, 1e6, 20.0)},
    },
    "optimizer": {
        Optimizer.SGD: {"server_learning_rate": _RATE},
        Optimizer.MOMENTUM: {"server_learning_rate": _RATE, "momentum": _Number(0.0, 0.9999, 0.9)},
        Optimizer.ADAGRAD: {
            **{key: option for key, option in _ADAPTIVE.items() if key != "beta_2"},
            "beta_1": _Number(0.0, 0.9999, 0.0),
        },
        Optimizer.YOGI: _ADAPTIVE,
        Optimizer.ADAM: _ADAPTIVE,
        Optimizer.AMSGRAD: _ADAPTIVE,
    },
}


def options(values: Mapping[str, Any]) -> dict[str, Option]:
    """What a rule takes, which depends on the words that it is given.

    Args:
        values: what is given, of which the words are read.

    Returns:
        By key, in the order in which they are written down.

    Raises:
        RuleError: a word is refused.
    """
    kinds = _Word(tuple(Kind), Kind.FEDBUFF)
    kind = kinds.read("kind", values.get("kind", kinds.default))
    taken: dict[str, Option] = {"kind": kinds, **_BY_KIND[kind]}
    for key, more in _BY_WORD.items():
        if key in taken:
            taken |= more[taken[key].read(key, values.get(key, taken[key].default))]
    if kind is Kind.FEDASYNC:
        # It mixes two models; beyond 1 it would leave them both behind.
        taken["server_learning_rate"] = _MIXING_RATE
    return taken


def check_together(values: Mapping[str, Any]) -> None:
    """Refuse values that are each in range, but not together.

    Args:
        values: everything that a rule takes, as read.

    Raises:
        RuleError: names the key, the value and what was expected.
    """
    if byzantine := values.get("krum_byzantine", 0):
        least, size = 2 * byzantine + 3, values["buffer_size"]
        if not least <= size <= MAX_KRUM_BUFFER:
            expected = f"{least} to {MAX_KRUM_BUFFER} with krum_byzantine {byzantine}"
            raise _fields("buffer_size", size).refusal("buffer_size", size, expected)
