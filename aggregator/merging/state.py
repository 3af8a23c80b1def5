"""What a merge works on: the server's state, and the updates it folds in."""

from collections.abc import Mapping
from dataclasses import dataclass

from wire.delta import Delta, FloatArray

__all__ = ["Contribution", "Part", "ServerState"]


@dataclass(frozen=True, slots=True)
class ServerState:
    """One version of a task's federated parameters.

    Attributes:
        version: the model counter, 0 for the bundle's initial parameters.
        parameters: for each federated parameter a float32 array of its full shape. Nobody writes
            to them; a merge shares with its successor what it did not change.
    """

    version: int
    parameters: Mapping[str, FloatArray]


@dataclass(frozen=True, slots=True)
class Contribution:
    """One accepted update, ready to be merged.

    Attributes:
        id: its ledger id; a merge folds in the order of these ids, whatever order it is given.
        base_version: the version that its device started from.
        examples: training interactions behind it.
        delta: the decoded delta.
    """

    id: int
    base_version: int
    examples: int
    delta: Delta


@dataclass(frozen=True, slots=True)
class Part:
    """What one update brings into a merge.

    Attributes:
        id: its ledger id.
        fresh: what it would weigh if it were fresh, 0 or more.
        weight: what it weighs: ``fresh`` times the staleness weight.
        delta: the decoded delta.
    """

    id: int
    fresh: float
    weight: float
    delta: Delta
