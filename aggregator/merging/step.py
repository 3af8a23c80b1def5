"""From one version to the next: what a merge changes, and two ways of making the change.

``apply`` copies the arrays that change, so that both versions can be read afterwards. ``advance``
writes the changed rows into the arrays of the state that it is given, so that its time goes with
those rows and not with the table; it is for whoever owns the arrays. Both give the same bits.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aggregator.merging.state import MemoryArray, ServerState

__all__ = ["Change", "Step", "advance", "apply", "overwritten", "restore"]


@dataclass(frozen=True, slots=True)
class Change:
    """The new values of an array.

    Attributes:
        rows: int64 [n], increasing ids of the rows that change; None if the whole array does.
        values: [n, ...] or the whole array, in the array's type.
        shape: of the whole array; one that does not exist yet starts at zero.
    """

    rows: NDArray[np.int64] | None
    values: MemoryArray
    shape: tuple[int, ...]

    @classmethod
    def whole(cls, values: MemoryArray) -> "Change":
        """Of every value of an array."""
        return cls(None, values, values.shape)


@dataclass(frozen=True, slots=True)
class Step:
    """What a merge changes. What it does not name stays.

    Attributes:
        version: of the state that it was computed from.
        parameters: by name.
        memory: by name.
        dropped: names of memory that the rule has no use for.
    """

    version: int
    parameters: Mapping[str, Change]
    memory: Mapping[str, Change]
    dropped: frozenset[str] = frozenset()


def apply(state: ServerState, step: Step) -> ServerState:
    """The next version; copies the arrays that change, shares the others, modifies nothing.

    Raises:
        ValueError: the step was computed from another version.
    """
    _check(state, step)
    parameters, memory = dict(state.parameters), _memory(state, step)
    for name, change in step.parameters.items():
        parameters[name] = _written(parameters[name].copy(), change)
    for name, change in step.memory.items():
        shared = name in state.memory
        memory[name] = _written(memory[name].copy() if shared else memory[name], change)
    return ServerState(state.version + 1, parameters, memory)


def advance(state: ServerState, step: Step) -> ServerState:
    """The next version, in the arrays of the old one: the caller owns them, and nobody else reads.

    Raises:
        ValueError: the step was computed from another version; nothing is written.
    """
    _check(state, step)
    memory = _memory(state, step)
    for name, change in step.parameters.items():
        _written(state.parameters[name], change)
    for name, change in step.memory.items():
        _written(memory[name], change)
    return ServerState(state.version + 1, state.parameters, memory)


def overwritten(state: ServerState, step: Step) -> Step:
    """A copy of all that ``advance`` would write over; see ``restore``."""
    known = {name: change for name, change in step.memory.items() if name in state.memory}
    return Step(
        state.version,
        {name: _old(state.parameters[name], change) for name, change in step.parameters.items()},
        {name: _old(state.memory[name], change) for name, change in known.items()},
    )


def restore(state: ServerState, old: Step) -> None:
    """Write back what was ``overwritten``, into the arrays of the state that it was taken from."""
    for name, change in old.parameters.items():
        _written(state.parameters[name], change)
    for name, change in old.memory.items():
        _written(state.memory[name], change)


def _check(state: ServerState, step: Step) -> None:
    if step.version != state.version:
        raise ValueError(f"the step starts from version {step.version}, not {state.version}")


def _memory(state: ServerState, step: Step) -> dict[str, MemoryArray]:
    """The arrays that are remembered on, and those that start: all memory is taken here."""
    memory = {name: array for name, array in state.memory.items() if name not in step.dropped}
    for name, change in step.memory.items():
        if name not in memory:
            memory[name] = np.zeros(change.shape, change.values.dtype)
    return memory


def _old(array: MemoryArray, change: Change) -> Change:
    values = array.copy() if change.rows is None else array[change.rows]
    return Change(change.rows, values, change.shape)


def _written(array: MemoryArray, change: Change) -> MemoryArray:
    array[... if change.rows is None else change.rows] = change.values
    return array
