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
        # Of this round: who had a place, and who of them failed.
        self._served, self._failed = set[int](), set[int]()
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
            self._look_whether_over()

    def done(self, number: int, *, failed: bool) -> None:
        """A device that had begun has ended; of an earlier round it leaves this one as it is."""
        if number not in self._busy:
            return
        self._busy.remove(number)
        if failed and number in self._served:
            self._failed.add(number)
        self._give()
        self._look_whether_over()

    def refused(self, number: int) -> None:
        """The aggregator refused what a device sent, and perhaps said so twice.

        If that was for this round, the aggregator still waits for one more.
        """
        if number in self._served - self._busy - self._chosen:
            self._failed.add(number)
            self._give()

    def announced(self, version: int) -> None:
        """A version was announced, perhaps again."""
        if version != self._version:
            self._version = version
            self._next_round()

    def _next_round(self) -> None:
        self._cancel_alarm()
        self._served.clear()
        self._failed.clear()
        self._give()

    def _look_whether_over(self) -> None:
        """If nobody of this round is at work any more, wait for a version, but not for ever."""
        at_work = self._served & (self._busy | self._chosen)
        if self._served and not at_work and self._alarm is None:
            self._alarm = self._time.after(self._patience_s, self._next_round)

    def _cancel_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _free(self) -> int:
        if self._rounds:
            return self._places + len(self._failed) - len(self._served)
        return self._places - len(self._busy) - len(self._chosen)

    def _give(self, *, asking: int = -1) -> None:
        """Give what is free to devices that wait; those of this round had their turn."""
        candidates = [number for number in self._waiting if number not in self._served]
        count = min(self._free(), len(candidates))
        if count < 1:
            return
        # Somebody of this round is at work again.
        self._cancel_alarm()
        for at in self._rng.choice(len(candidates), count, replace=False).tolist():
            number = candidates[at]
            del self._waiting[number]
            self._chosen.add(number)
            if self._rounds:
                self._served.add(number)
            if number != asking:
                self.on_chosen(number)
