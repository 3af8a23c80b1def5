"""Who trains when: as soon as a place is free, or in rounds in which all begin together."""

from collections.abc import Callable

import numpy as np

from device_sims.simulation.virtual_time import Alarm, VirtualTime

__all__ = ["Places"]


class Places:
    """Gives a fixed number of places to devices that ask for one, in random order.

    Without rounds a place goes to the next device as soon as the one before is done, as in Huba et
    al., "Papaya: Practical, Private, and Scalable Federated Learning", MLSys 2022. With rounds all
    begin with the same version, and the next places are given when a newer version is announced:
    the barrier of McMahan et al., AISTATS 2017. Who fails is replaced by another, and when nothing
    comes of a round all the same, the next one begins.

    Args:
        places: at least 1.
        rounds: whether to give them in rounds.
        patience_s: with rounds: how long after the last of a round is done another begins, though
            there is no newer version.
        time: the clock.
        rng: decides between devices.

    Attributes:
        on_chosen: called with the number of a device that waits and now has a place.
    """

    def __init__(
        self,
        *,
        places: int,
        rounds: bool,
        patience_s: float,
        time: VirtualTime,
        rng: np.random.Generator,
    ) -> None:
        self._places, self._rounds, self._patience_s = places, rounds, patience_s
        self._time, self._rng = time, rng
        self.on_chosen: Callable[[int], object] = lambda _number: None
        # Dictionaries for their order, which does not change from one process to the next.
        self._waiting = dict[int, None]()
        self._chosen, self._busy = set[int](), set[int]()
        # Of this round: who had a place, and how many of them failed.
        self._served, self._failed = set[int](), 0
        self._version = -1
        self._alarm: Alarm | None = None

    def ask(self, number: int) -> bool:
        """Whether a device may begin now; otherwise it will be called when it may."""
        if number not in self._chosen:
            self._waiting[number] = None
            self._give(asking=number)
        if number not in self._chosen:
            return False
        self._chosen.remove(number)
        self._busy.add(number)
        return True

    def offline(self, number: int) -> None:
        """A device has no connection; if it has begun it goes on."""
        self._waiting.pop(number, None)
        if number in self._chosen:
            self._chosen.remove(number)
            self._served.discard(number)
            self._give()

    def done(self, number: int, *, failed: bool) -> None:
        """A device that had begun has ended."""
        if number not in self._busy:
            return
        self._busy.remove(number)
        self._failed += failed
        self._give()
        if self._rounds and not self._busy and not self._chosen:
            self._await_version()

    def refused(self) -> None:
        """The aggregator refused what a device sent, and so waits for one less."""
        self._failed += 1
        self._give()

    def announced(self, version: int) -> None:
        """A version was announced, perhaps again."""
        if version != self._version:
            self._version = version
            self._next_round()

    def _next_round(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        self._served.clear()
        self._failed = 0
        self._give()

    def _await_version(self) -> None:
        if self._alarm is None:
            self._alarm = self._time.after(self._patience_s, self._next_round)

    def _free(self) -> int:
        if self._rounds:
            return self._places + self._failed - len(self._served)
        return self._places - len(self._busy) - len(self._chosen)

    def _give(self, *, asking: int = -1) -> None:
        """Give what is free to devices that wait; those of this round had their turn."""
        candidates = [number for number in self._waiting if number not in self._served]
        count = min(self._free(), len(candidates))
        if count < 1:
            return
        for at in self._rng.choice(len(candidates), count, replace=False).tolist():
            number = candidates[at]
            del self._waiting[number]
            self._chosen.add(number)
            if self._rounds:
                self._served.add(number)
            if number != asking:
                self.on_chosen(number)
