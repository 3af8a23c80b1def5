"""A device as a page: a pickled object without what others hold too."""

import copyreg
import io
import pickle
from typing import Any

import numpy as np

from device_sims.nature import Conditions, Nature, Stretch
from device_sims.simulation.device import Device, Surroundings
from device_sims.simulation.virtual_time import Alarm
from edge_agent.config import AgentConfig
from edge_agent.durable_state import Waiting
from edge_agent.task import LocalTask
from wire.messages import Announcement

__all__ = ["Left", "Sleep"]

LEFT = frozenset({Alarm, AgentConfig, Announcement, Conditions, Nature})
"""Kinds of objects that a page refers to: others hold them too, or they take less room as they are
than as a page."""

Left = tuple[object, ...]


class Sleep:
    """Makes pages of devices, and devices of pages.

    Args:
        around: what devices share.
    """

    def __init__(self, around: Surroundings) -> None:
        self.shared: list[object] = [
            *(around, around.source, around.runtime, around.trainer),
            *(around.breaker, around.shortage, *around.shared),
        ]
        self.numbers = {id(one): ~at for at, one in enumerate(self.shared)}
        self.task: LocalTask | None = None

    def page_of(self, device: Device) -> tuple[bytes, Left]:
        """A page, and what must be handed in with it again."""
        page = io.BytesIO()
        pickler = _Pickler(page, self)
        pickler.dump(device)
        return page.getvalue(), tuple(pickler.left)

    def device_of(self, page: bytes, left: Left) -> Device:
        """The device as it was."""
        device: Device = _Unpickler(page, self, left).load()
        return device


class _Pickler(pickle.Pickler):
    def __init__(self, page: io.BytesIO, sleep: Sleep) -> None:
        super().__init__(page, pickle.HIGHEST_PROTOCOL)
        self.dispatch_table = _QUICKLY
        self._sleep, self._numbers = sleep, sleep.numbers
        self.left: list[object] = []

    def persistent_id(self, obj: Any) -> int | str | None:
        kind = type(obj)
        if kind in LEFT:
            self.left.append(obj)
            return len(self.left) - 1
        if kind is LocalTask:
            # Each device opened it for itself, and all are alike.
            self._sleep.task = self._sleep.task or obj
            return "task"
        return self._numbers.get(id(obj))


class _Unpickler(pickle.Unpickler):
    def __init__(self, page: bytes, sleep: Sleep, left: Left) -> None:
        super().__init__(io.BytesIO(page))
        self._sleep, self._left = sleep, left

    def persistent_load(self, pid: int | str) -> Any:
        if isinstance(pid, str):
            return self._sleep.task
        return self._left[pid] if pid >= 0 else self._sleep.shared[~pid]


def _generator(state: Any) -> np.random.Generator:
    bits = np.random.PCG64(0)
    bits.state = state
    return np.random.Generator(bits)


# What these have by themselves takes several times as long.
_QUICKLY: dict[type, Any] = {
    **copyreg.dispatch_table,
    np.random.Generator: lambda rng: (_generator, (rng.bit_generator.state,)),
    Stretch: lambda stretch: (Stretch, (stretch.from_s, stretch.to_s, stretch.conditions)),
    Waiting: lambda waiting: (Waiting, (waiting.updates, waiting.size_bytes)),
}
