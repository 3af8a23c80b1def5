"""What a merge works on: the server's state, and the updates it folds in."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wire.delta import Delta, FloatArray

__all__ = ["Contribution", "MemoryArray", "ServerState", "recall"]

MemoryArray = NDArray[Any]


@dataclass(frozen=True, slots=True)
class ServerState:
    """One version of a task's federated parameters, and what its rule remembers.

    Attributes:
        version: the model counter, 0 for the bundle's initial parameters.
        parameters: for each federated parameter a float32 array of its full shape. ``apply`` leaves
            them alone and shares with the next version what it did not change; ``advance`` writes
            into them.
        memory: what the rule needs from one merge to the next, as arrays of fixed types that a
            snapshot can hold: ``slot/parameter`` for what belongs to a parameter, ``slot`` for the
            rest. An array that is not there yet counts as zero.
    """

    version: int
    parameters: Mapping[str, FloatArray]
    memory: Mapping[str, MemoryArray] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Contribution:
    """One accepted update, ready to be merged.

    Attributes:
        id: its ledger id; a merge folds in the order of these ids, whatever order it is given.
        base_version: the version that its device started from.
        examples: training interactions behind it.
        delta: the decoded delta.
        device: who sent it; read where ``Rule.needs_device``.
        previous: the decoded delta of the device's newest update that an earlier merge took, None
            without one; read where ``Rule.needs_previous``.
        device_updates: updates of the device that were accepted before this one; read where
            ``Rule.needs_device_updates``.
        previous_version: the version that took ``previous``, 1 or more where there is one.
    """

    id: int
    base_version: int
    examples: int
    delta: Delta
    device: str = ""
    previous: Delta | None = None
    device_updates: int = 0
    previous_version: int = 0


def recall(
    state: ServerState,
    name: str,
    shape: tuple[int, ...],
    dtype: type[np.generic],
    rows: NDArray[np.int64] | None = None,
) -> MemoryArray:
    """A copy of what the state remembers under a name, all of it or some rows; zero if nothing.

    Args:
        state: whose memory.
        name: of the array.
        shape: of the whole array.
        dtype: of its values.
        rows: int64 [n], which rows; None for the whole array.
    """
    found = state.memory.get(name)
    if rows is None:
        return np.zeros(shape, dtype) if found is None else found.copy()
    return np.zeros((len(rows), *shape[1:]), dtype) if found is None else found[rows]
