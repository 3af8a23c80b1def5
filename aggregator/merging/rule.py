"""A merge rule: what is configured, stored with every version, and changed while a task runs."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import Enum, StrEnum
from typing import Any, Self

from aggregator.merging.choices import (
    Kind,
    Optimizer,
    RowCorrection,
    Staleness,
    StalenessScope,
    Weighting,
)
from aggregator.merging.options import Option, RuleError, check_together, options

__all__ = ["Rule"]


class _Unset(Enum):
    UNSET = "unset"


# Not None, which a PATCH can send; a member of an enumeration stays the same object when copied.
UNSET: Any = _Unset.UNSET


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """When a buffer of updates is merged, and how.

    The words (``kind``, ``staleness``, ``row_correction``, ``optimizer``) decide which of the other
    keys there are: a key that they do not take is refused when it is given, is absent from
    ``to_dict`` and must not be read. What is not given takes the default of its kind.

    Attributes:
        kind: ``fedavg``, ``fedasync``, ``fedbuff`` (default), ``fadas`` or ``ca2fl``.
        buffer_size: updates that make a version, 1 to 100,000, default 20; fedasync: 1.
        max_wait_s: a buffer with something in it is merged after this many seconds even if it is
            not full, 0.01 to 1e7, default 30.
        weighting: ``uniform`` (default), or by the number of ``examples`` behind an update.
        staleness: fedasync, fedbuff: ``constant``, ``polynomial`` (default) or ``hinge``.
        staleness_exponent: polynomial: exponent, 0 to 10; 0.5 (default) is FedBuff.
        staleness_slope: hinge: how fast the weight falls, above 0 and at most 1000, default 10.
        staleness_delay: hinge: versions that cost nothing, 0 to 1,000,000, default 4.
        staleness_scope: fedasync, fedbuff: ``model`` (default) or ``row``.
        delay_threshold: fadas: staleness from which the step shrinks, 0 to 1,000,000, default 1.
        participation_exponent: fedbuff, fadas: how much more an update weighs whose device sent
            few, 0 to 2; 0 (default) ignores it.
        participation_limit: fedbuff, fadas: at most so many times more, 1 to 1000, default 4.
        row_clip: fedavg, fedbuff, fadas: a row of an update is scaled down to so many times the
            usual length of the buffer's rows, 0 to 1e9; 0 (default) for no clipping.
        trim: fedavg, fedbuff, fadas: share of the updates that touch a row which is left out at
            each end of every coordinate, 0 to 0.49; 0 (default) for the plain mean.
        krum_byzantine: fedavg, fedbuff, fadas: multi-Krum leaves out so many updates of a buffer, 0
            to 248; 0 (default) for none. It compares every two updates, so ``buffer_size`` may be
            at most 500, and must be above twice so many and two.
        row_correction: ``none`` (default), ``touched`` or ``heat``; fedasync, ca2fl: ``none``.
        heat_limit: heat: largest factor on a row, 1 to 1e6, default 20.
        optimizer: ``sgd`` (FedAvg; default), ``momentum`` (FedAvgM), ``adagrad``, ``yogi``,
            ``adam`` or ``amsgrad`` (default of fadas); fedasync: ``sgd``.
        server_learning_rate: factor on the server's step, above 0 and at most 100; default 1, and
            0.01 with an adaptive optimizer. fedasync: the mixing weight, at most 1.
        momentum: momentum: share of the last step that is kept, 0 to 0.9999, default 0.9.
        beta_1: adaptive: decay of the mean, 0 to 0.9999, default 0.9, and 0 with adagrad.
        beta_2: yogi, adam, amsgrad: decay of the mean square, 0 to 0.9999, default 0.99.
        adaptivity: adaptive: what is added to the root mean square, 1e-6 to 1, default 0.001.
    """

    kind: Kind = UNSET
    buffer_size: int = UNSET
    max_wait_s: float = UNSET
    weighting: Weighting = UNSET
    staleness: Staleness = UNSET
    staleness_exponent: float = UNSET
    staleness_slope: float = UNSET
    staleness_delay: int = UNSET
    staleness_scope: StalenessScope = UNSET
    delay_threshold: int = UNSET
    participation_exponent: float = UNSET
    participation_limit: float = UNSET
    row_clip: float = UNSET
    trim: float = UNSET
    krum_byzantine: int = UNSET
    row_correction: RowCorrection = UNSET
    heat_limit: float = UNSET
    optimizer: Optimizer = UNSET
    server_learning_rate: float = UNSET
    momentum: float = UNSET
    beta_1: float = UNSET
    beta_2: float = UNSET
    adaptivity: float = UNSET

    def __post_init__(self) -> None:
        """Check what is given and fill in the rest; raises RuleError."""
        given = self._values()
        taken = options(given)
        for key in given:
            if key not in taken:
                raise RuleError(
                    f"rule.{key} is {given[key]!r:.80}; expected no such key: "
                    f"{_words(given, taken)} take only {', '.join(taken)}"
                )
        for key, option in taken.items():
            object.__setattr__(self, key, option.read(key, given.get(key, option.default)))
        check_together(self._values())

    @property
    def needs_device(self) -> bool:
        """Whether a contribution must name its ``device``."""
        return self.row_correction is RowCorrection.HEAT or self.needs_previous

    @property
    def needs_device_updates(self) -> bool:
        """Whether a contribution must say how many its device sent before."""
        return _is_positive(self.participation_exponent)

    @property
    def clips_rows(self) -> bool:
        """Whether rows are clipped to ``row_clip``."""
        return _is_positive(self.row_clip)

    @property
    def trims(self) -> bool:
        """Whether the mean is trimmed by ``trim``."""
        return _is_positive(self.trim)

    @property
    def leaves_out(self) -> bool:
        """Whether multi-Krum leaves out ``krum_byzantine`` updates."""
        return _is_positive(self.krum_byzantine)

    @property
    def row_staleness(self) -> bool:
        """Whether staleness is counted for each row."""
        return self.staleness_scope is StalenessScope.ROW

    @property
    def needs_previous(self) -> bool:
        """Whether a contribution must bring its device's delta before."""
        return self.kind is Kind.CA2FL

    def to_dict(self) -> dict[str, Any]:
        """As a JSON-ready map of everything that the rule takes."""
        return {
            key: value.value if isinstance(value, StrEnum) else value
            for key, value in self._values().items()
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

    def changed(self, changes: Mapping[str, Any]) -> Self:
        """This rule with some keys changed.

        A key that is not among the changes keeps its value where it means the same in the new
        rule; where the new words give it another range or default, or do not take it, it does not.

        Raises:
            RuleError: names the key, the value and what was expected.
        """
        old = self.to_dict()
        before, kind = options(old), options({"kind": changes.get("kind", self.kind)})
        words = {key: value for key, value in old.items() if before[key] == kind.get(key)}
        after = options({**words, **changes})
        kept = {key: value for key, value in old.items() if before[key] == after.get(key)}
        return self.from_dict({**kept, **changes})

    def _values(self) -> dict[str, Any]:
        values = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        return {key: value for key, value in values.items() if value is not UNSET}


def _is_positive(value: Any) -> bool:
    return value is not UNSET and value > 0


def _words(given: Mapping[str, Any], taken: Mapping[str, Option]) -> str:
    """The words of a rule as a sentence about its keys names them."""
    words = ("kind", "staleness", "row_correction", "optimizer")
    return ", ".join(f"{w} {given.get(w, taken[w].default)}" for w in words if w in taken)
