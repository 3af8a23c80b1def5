"""A device as a page: a pickled object without what others hold too."""

import copyreg
import io
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random.bit_generator import ISeedSequence

from device_sims.nature import Conditions, Nature, Stretch
from device_sims.simulation.device import Device, Surroundings
from device_sims.simulation.memory_store import MemoryStore
from device_sims.simulation.power import Guarded
from device_sims.simulation.virtual_time import Alarm
from edge_agent.config import AgentConfig, OutboxLimits
from edge_agent.durable_state import Waiting
from edge_agent.task import LocalTask
from wire.messages import Announcement

__all__ = ["Left", "Sleep"]

LEFT = (Alarm, AgentConfig, Announcement, Conditions, Nature, OutboxLimits)
"""Kinds of objects that a page refers to: others hold them too, or they take less room as they are
than as a page."""

Left = tuple[object, ...]


class Sleep:
    """Makes pages of devices, and devices of pages.

    What a page refers to is told by its type, in a table that the pickler looks into by itself: to
    be asked for every number and text in it took most of the time.

    Args:
        around: what devices share.
    """

    def __init__(self, around: Surroundings) -> None:
        self._shared: list[object] = [
            *(around, around.source, around.runtime, around.trainer),
            *(around.breaker, around.shortage, *around.shared),
        ]
        self._references = {id(one): _Shared(at) for at, one in enumerate(self._shared)}
        self._left: list[object] = []
        self._task: LocalTask | None = None
        self._table: dict[type, Any] = {
            **copyreg.dispatch_table,
            **_QUICKLY,
            **{type(one): self._refer for one in self._shared if type(one) not in _BUILT_IN},
            **dict.fromkeys(LEFT, self._leave),
            LocalTask: self._refer_to_task,
            MemoryStore: self._store,
            Guarded: self._guarded,
        }

    def page_of(self, device: Device) -> tuple[bytes, Left]:
        """A page, and what must be handed in with it again."""
        self._left = []
        page = io.BytesIO()
        pickler = pickle.Pickler(page, pickle.HIGHEST_PROTOCOL)
        pickler.dispatch_table = self._table
        pickler.dump(device)
        return page.getvalue(), tuple(self._left)

    def device_of(self, page: bytes, left: Left) -> Device:
        """The device as it was."""
        found: dict[object, Callable[..., object]] = {
            _shared: self._shared.__getitem__,
            _left: left.__getitem__,
            _task: self._the_task,
        }
        device: Device = _Unpickler(page, found).load()
        return device

    def _the_task(self) -> LocalTask | None:
        return self._task

    # How pages refer to what is not in them

    def _refer(self, one: Any) -> Any:
        reference = self._references.get(id(one))
        return one.__reduce_ex__(pickle.HIGHEST_PROTOCOL) if reference is None else reference.told

    def _leave(self, one: object) -> Any:
        self._left.append(one)
        return _left, (len(self._left) - 1,)

    def _refer_to_task(self, task: LocalTask) -> Any:
        # Each device opened it for itself, and all are alike.
        self._task = self._task or task
        return _task, ()

    def _store(self, store: MemoryStore) -> Any:
        state = dict(store.__dict__)
        state["_manifests"] = {of: self._known(raw) for of, raw in state["_manifests"].items()}
        return copyreg.__newobj__, (MemoryStore,), state  # type: ignore[attr-defined]

    def _guarded(self, guarded: Guarded) -> Any:
        return Guarded, (guarded.storage_, guarded.guard_, self._known(guarded.writes_))

    def _known(self, one: object) -> object:
        return self._references.get(id(one), one)


@dataclass(frozen=True, slots=True)
class _Shared:
    """Stands for a shared object of a built-in type, of which a pickler asks nobody."""

    number: int

    @property
    def told(self) -> tuple[Callable[..., object], tuple[int]]:
        return _shared, (self.number,)


class _Unpickler(pickle.Unpickler):
    def __init__(self, page: bytes, found: dict[object, Callable[..., object]]) -> None:
        super().__init__(io.BytesIO(page))
        self._found = found

    def find_class(self, module: str, name: str) -> Any:
        named = _NAMED.get((module, name))
        if named is None:
            named = _NAMED[module, name] = super().find_class(module, name)
        return self._found.get(named, named)


_NAMED: dict[tuple[str, str], Any] = {}
"""What pages name, found once: by itself a pickler goes through the imported modules each time."""


def _shared(number: int) -> object:
    raise NotImplementedError(f"a page refers to shared object {number}; see Sleep.device_of")


def _left(number: int) -> object:
    raise NotImplementedError(f"a page left object {number} out; see Sleep.device_of")


def _task() -> object:
    raise NotImplementedError("a page refers to the task; see Sleep.device_of")


class _NoSeed(ISeedSequence):
    """Seeds what gets its state from elsewhere."""

    def generate_state(self, n_words: int, dtype: Any = np.uint32) -> Any:
        return np.zeros(n_words, dtype)


_NO_SEED = _NoSeed()


def _generator(state: Any) -> np.random.Generator:
    bits = np.random.PCG64(_NO_SEED)  # type: ignore[arg-type]
    bits.state = state
    return np.random.Generator(bits)


_BUILT_IN = (bytes, tuple)

# What these have by themselves takes several times as long.
_QUICKLY: dict[type, Any] = {
    _Shared: lambda shared: shared.told,
    np.random.Generator: lambda rng: (_generator, (rng.bit_generator.state,)),
    Stretch: lambda stretch: (Stretch, (stretch.from_s, stretch.to_s, stretch.conditions)),
    Waiting: lambda waiting: (Waiting, (waiting.updates, waiting.size_bytes)),
}
