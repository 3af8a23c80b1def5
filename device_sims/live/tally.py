"""What the devices of a process did, as their storages are told of it."""

from array import array
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from device_sims.nature import Nature
from device_sims.simulation.audit import PrivacyWatch
from device_sims.simulation.mass import MassWatch
from device_sims.simulation.meter import Meter
from device_sims.simulation.power import breaking
from edge_agent.durable_state import DurableState, OutboxEntry
from edge_agent.trainer import Here, Trainer
from wire.delta import FloatArray
from wire.manifest import Manifest

__all__ = ["Tally"]

HEARD = ("record_update", "sent", "settle", "take_back")


@dataclass(slots=True)
class Tally:
    """Adds up over the devices of a process; written by its worker thread alone.

    Attributes:
        mass: looks at every update.
        updates: made, by device number.
        answered: updates that are settled.
        accepted: device number and sequence, in turn, of what a device was told is in the ledger.
        took_part: numbers of the devices that were told so.
        meter: bytes and energy.
        private: each device's private parameters after its last update.
        faults: how many happened, by kind.
        privacy: looks at every message.
    """

    mass: MassWatch
    updates: Counter[int] = field(default_factory=Counter)
    answered: int = 0
    accepted: "array[int]" = field(default_factory=lambda: array("q"))
    took_part: set[int] = field(default_factory=set)
    meter: Meter = field(default_factory=Meter)
    private: dict[int, Mapping[str, FloatArray]] = field(default_factory=dict)
    faults: Counter[str] = field(default_factory=Counter)
    privacy: PrivacyWatch = field(default_factory=PrivacyWatch)

    @classmethod
    def of(cls, manifest: Manifest) -> "Tally":
        """An empty one for a task."""
        return cls(MassWatch(manifest.federated))

    def over(
        self, store: DurableState, number: int, nature: Nature, *, checks: bool
    ) -> tuple[Any, Trainer]:
        """The storage of a device, listened to, and the trainer that goes with it.

        Args:
            store: its storage.
            number: its number.
            nature: what it is like.
            checks: look at the content of messages and updates, too.
        """
        trainer: Trainer = Here()
        watched: Any = store
        if checks:
            watched = self.mass.over(store)
            trainer = self.mass.trainer(trainer, watched)
        return breaking(watched, _Ear(self, number, nature, checks=checks), HEARD), trainer


class _Ear:
    """Hears what a device's storage was told, once it is written."""

    def __init__(self, tally: Tally, number: int, nature: Nature, *, checks: bool) -> None:
        self._tally, self._number, self._nature, self._checks = tally, number, nature, checks

    def write(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        result = method(*args, **kwargs)
        match method.__name__:
            case "record_update":
                self._made(args[0], kwargs["private"], kwargs["received_bytes"])
            case "sent":
                self._tally.meter.sent(self._nature, len(args[0].payload))
            case "settle":
                self._settled(*args)
            case "take_back":
                self._tally.answered += 1
        return result

    def _made(
        self, entry: OutboxEntry, private: Mapping[str, FloatArray], received_bytes: int
    ) -> None:
        tally, nature = self._tally, self._nature
        tally.updates[self._number] += 1
        tally.private[self._number] = private
        tally.meter.trained(nature, nature.conditions.update_s)
        tally.meter.received(nature, received_bytes)
        if entry.attempts:
            tally.meter.sent(nature, len(entry.payload))
        if self._checks:
            tally.privacy.look(entry.payload, private.values())

    def _settled(self, sequence: int, counter: str) -> None:
        self._tally.answered += 1
        if counter != "rejected":
            self._tally.accepted.extend((self._number, sequence))
            self._tally.took_part.add(self._number)
