"""A merge rule: what is configured, stored with every version, and changed while a task runs."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Self

from wire.checks import Fields
from wire.errors import WireError

__all__ = ["RowCorrection", "Rule", "RuleError", "Weighting"]

MAX_BUFFER = 100_000
MAX_KRUM_BUFFER = 500


class RuleError(WireError):
    """A merge rule is refused; the message names the key, the value and what was expected."""


class Weighting(StrEnum):
    """What an update weighs before its staleness is looked at."""

    UNIFORM = "uniform"
    EXAMPLES = "examples"


class RowCorrection(StrEnum):
    """Over which updates a row of an item table is averaged.

    ``none``: over the whole buffer, so that a row which one of twenty updates touches moves by a
    twentieth. ``touched``: over the updates that touch the row, the heat correction of FedSubAvg
    (Ding et al., "Federated Submodel Optimization for Hot and Cold Data Features", NeurIPS 2022)
    taken within a buffer.
    """

    NONE = "none"
    TOUCHED = "touched"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """When a buffer of updates is merged, and how.

    Attributes:
        buffer_size: updates that make a version, 1 to 100,000.
        max_wait_s: a buffer with something in it is merged after this many seconds even if it is
            not full, 0.01 to 1e7.
        staleness_exponent: exponent of the polynomial staleness weight, 0 to 10; 0 ignores
            staleness, 0.5 is FedBuff.
        server_learning_rate: factor on the merged delta, above 0 and at most 100.
        weighting: ``uniform``, or by the number of ``examples`` behind an update.
        row_correction: ``none`` or ``touched``.
        row_clip: a row of an update is scaled down to so many times the usual length of the
            buffer's rows, 0 to 1e9; 0 for no clipping.
        trim: share of the updates that touch a row which is left out at each end of every
            coordinate, 0 to 0.49; 0 for the plain mean.
        krum_byzantine: multi-Krum leaves out so many updates of a buffer, 0 to 248; 0 for none. It
            compares every two updates, so the buffer may hold at most 500, and more than twice so
            many and two.
    """

    buffer_size: int = 20
    max_wait_s: float = 30.0
    staleness_exponent: float = 0.5
    server_learning_rate: float = 1.0
    weighting: Weighting = Weighting.UNIFORM
    row_correction: RowCorrection = RowCorrection.NONE
    row_clip: float = 0.0
    trim: float = 0.0
    krum_byzantine: int = 0

    def __post_init__(self) -> None:
        """Refuse values out of range with RuleError."""
        fields = Fields(asdict(self), where="rule", error=RuleError)
        fields.integer("buffer_size", 1, MAX_BUFFER)
        fields.number("max_wait_s", 0.01, 1e7)
        fields.number("staleness_exponent", 0.0, 10.0)
        if fields.number("server_learning_rate", 0.0, 100.0) <= 0.0:
            raise fields.refusal("server_learning_rate", self.server_learning_rate, "above 0")
        weighting = Weighting(fields.choice("weighting", tuple(Weighting)))
        correction = RowCorrection(fields.choice("row_correction", tuple(RowCorrection)))
        fields.number("row_clip", 0.0, 1e9)
        fields.number("trim", 0.0, 0.49)
        if byzantine := fields.integer("krum_byzantine", 0, MAX_KRUM_BUFFER // 2 - 2):
            least = 2 * byzantine + 3
            if not least <= self.buffer_size <= MAX_KRUM_BUFFER:
                expected = f"{least} to {MAX_KRUM_BUFFER} with krum_byzantine {byzantine}"
                raise fields.refusal("buffer_size", self.buffer_size, expected)
        object.__setattr__(self, "weighting", weighting)
        object.__setattr__(self, "row_correction", correction)

    def to_dict(self) -> dict[str, Any]:
        """As a JSON-ready map."""
        return {
            **asdict(self),
            "weighting": self.weighting.value,
            "row_correction": self.row_correction.value,
        }

    @classmethod
    def from_dict(cls, values: object) -> Self:
        """From a decoded map; keys left out take their defaults, unknown ones are refused.

        Raises:
            RuleError: names the key, the value and what was expected.
        """
        if not isinstance(values, Mapping):
            raise RuleError(f"rule is {values!r:.80}; expected a map")
        for key in values:
            if key not in cls.__dataclass_fields__:
                allowed = ", ".join(cls.__dataclass_fields__)
                raise RuleError(f"rule has an unknown key {key!r:.80}; it takes {allowed}")
        return cls(**values)
