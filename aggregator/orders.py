"""How a task is run at present, and how an operator changes that."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from aggregator.ledger import TaskRecord
from aggregator.merging import Rule
from wire.policy import CodecPolicy, TrainingPolicy

__all__ = ["Orders", "Steering"]


@dataclass(frozen=True, slots=True)
class Orders:
    """What a task record says about how to train, encode and merge, parsed."""

    training: TrainingPolicy
    codec: CodecPolicy
    rule: Rule

    @classmethod
    def of(cls, record: TaskRecord) -> Self:
        """Parse a record; raises WireError for a policy or rule that is not valid."""
        return cls(
            TrainingPolicy.from_dict(record.training),
            CodecPolicy.from_dict(record.codec),
            Rule.from_dict(record.rule),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Steering:
    """What an operator changes about a task. None leaves a thing as it is; a map changes its keys.

    A rule that gets another kind or optimizer starts at the defaults of what comes with it.

    Attributes:
        paused: devices stop training; what still arrives is accepted and waits.
        training: keys of the training policy.
        codec: keys of the codec policy.
        rule: keys of the merge rule.
    """

    paused: bool | None = None
    training: Mapping[str, Any] | None = None
    codec: Mapping[str, Any] | None = None
    rule: Mapping[str, Any] | None = None

    def applied(self, record: TaskRecord) -> TaskRecord:
        """The record with the changes; raises RuleError for a rule that would not be valid."""
        return replace(
            record,
            paused=record.paused if self.paused is None else self.paused,
            training={**record.training, **(self.training or {})},
            codec={**record.codec, **(self.codec or {})},
            rule=Rule.from_dict(record.rule).changed(self.rule or {}).to_dict(),
        )

    def describe(self) -> str:
        """The changes in one line."""
        named = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return ", ".join(f"{name} {value}" for name, value in named.items() if value is not None)
