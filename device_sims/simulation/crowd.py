"""All devices of a simulation: those that do something are in memory, the others on the disk."""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from device_sims.nature import Nature
from device_sims.simulation.device import Device, Surroundings
from device_sims.simulation.pages import Pages
from device_sims.simulation.sleep import Left, Sleep
from device_sims.simulation.virtual_time import START
from wire.bundle import Bundle
from wire.delta import FloatArray

__all__ = ["Crowd"]

OF_NO_USE_AT_REST = frozenset({Device.connect, Device.drop, Device.ring, Device.wake})
"""What a device need not be woken for when nothing is trained and it has nothing to say."""


class Crowd:
    """Wakes devices for what happens to them, and puts those to sleep that wait for long.

    A device that slept goes on as if it never had, so a run has the same result whatever the number
    that stay awake.

    Args:
        make: makes the device of a number and a nature, for the first time.
        natures: what each of them is like.
        around: what they share.
        pages: where those that sleep lie.
        awake: so many stay in memory, those that something happened to last; and all that are busy.

    Attributes:
        natures: as given.
    """

    def __init__(
        self,
        make: Callable[[int, Nature], Device],
        natures: Sequence[Nature],
        around: Surroundings,
        pages: Pages,
        *,
        awake: int,
    ) -> None:
        self._make, self.natures, self._around = make, natures, around
        self._pages, self._most = pages, awake
        self._busy: dict[int, Device] = {}
        self._waiting: OrderedDict[int, Device] = OrderedDict()
        self._left: dict[int, Left] = {}
        self._listening: dict[int, int] = {}
        self._unsettled: dict[int, int] = {}
        self._sleep = Sleep(around)
        around.call = self.call

    def __len__(self) -> int:
        return len(self.natures)

    @property
    def unsettled(self) -> int:
        """How many devices are down, or have updates that are not answered."""
        return len(self._unsettled)

    def start(self) -> None:
        """Have each device switched on when it is there for the first time."""
        for number, nature in enumerate(self.natures):
            self._around.time.at(START + nature.joins_s, self.call(number, 0, Device.start))

    def call(
        self, number: int, life: int | None, method: Callable[..., object], *args: object
    ) -> Callable[..., object]:
        """The call of a method of a device, which does nothing if the device has died since.

        Args:
            number: of the device.
            life: the one in which it happens; None for any, or none.
            method: of ``Device``.
            args: of the call; it may be called with more.
        """
        return partial(self.visit, number, life, method, *args)

    def visit(
        self, number: int, life: int | None, method: Callable[..., object], *args: object
    ) -> None:
        """Do something with a device; see ``call``."""
        if self._around.resting and method in OF_NO_USE_AT_REST and self._has_all(number):
            return
        device = self._awake(number)
        if life is None or device.life == life:
            method(device, *args)
        self._after(number, device)

    def private(self, number: int, bundle: Bundle) -> Mapping[str, FloatArray]:
        """A device's private parameters; nothing changes by looking."""
        return (self._found(number) or self._read(number)).private(bundle)

    def announced(self) -> None:
        """There is a new announcement, for those that wait for nothing else."""
        if self._around.resting:
            return
        for number, life in list(self._listening.items()):
            self.visit(number, life, Device.announced)

    def broken_off(self, down_s: float) -> None:
        """The broker is gone; it comes back after ``down_s``."""
        for number in range(len(self)):
            self.visit(number, None, Device.broken_off, down_s)

    def rest(self) -> None:
        """From now on nothing is trained, and those that have something to say connect."""
        self._around.resting = True
        for number, life in sorted(self._unsettled.items()):
            self.visit(number, life, Device.rest)

    def close(self) -> None:
        """Forget all of them."""
        self._pages.close()

    # Awake and asleep

    def _found(self, number: int) -> Device | None:
        return self._busy.get(number) or self._waiting.get(number)

    def _awake(self, number: int) -> Device:
        device = self._found(number)
        if device is None:
            device = self._waiting[number] = self._read(number)
        return device

    def _after(self, number: int, device: Device) -> None:
        """Note what became of a device, and put to sleep whoever has waited longest."""
        _note(self._listening, number, device.life if device.listens else None)
        _note(self._unsettled, number, None if device.settled else device.life)
        self._busy.pop(number, None)
        self._waiting.pop(number, None)
        (self._busy if device.is_busy else self._waiting)[number] = device
        while len(self._waiting) > self._most:
            self._put_to_sleep(*self._waiting.popitem(last=False))

    def _put_to_sleep(self, number: int, device: Device) -> None:
        page, self._left[number] = self._sleep.page_of(device)
        self._pages.write(number, page)

    def _has_all(self, number: int) -> bool:
        """Whether a device neither trains nor waits for an answer."""
        return number not in self._unsettled and number not in self._busy

    def _read(self, number: int) -> Device:
        if number not in self._left:
            return self._make(number, self.natures[number])
        return self._sleep.device_of(self._pages.read(number), self._left[number])


def _note(of: dict[int, int], number: int, life: int | None) -> None:
    if life is None:
        of.pop(number, None)
    else:
        of[number] = life
