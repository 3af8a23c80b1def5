"""How often a device may send, by the aggregator's own clock.

The generic cell rate algorithm (ITU-T Recommendation I.371, annex A, virtual scheduling) keeps one
number for each task and device: when its next update would be due if it kept to the spacing. An
update may come early by a burst of spacings, and each one taken puts the time off by one spacing.

That time is never further away than a full burst. So a clock that was set back holds a device up
for one spacing and not for years, and one that was set forward lets a burst in and no more. A
device whose burst is whole again is forgotten, for a new one is treated alike; so memory goes with
the devices of the last bursts, and has a bound on top. A process that starts has forgotten all:
each device may send a burst then.
"""

from collections.abc import Mapping
from types import MappingProxyType

__all__ = ["Rates", "Trial"]

MOST_DEVICES = 100_000
"""More than so many are not remembered; those heard from longest ago may send a burst again."""

Key = tuple[str, str]


class Rates:
    """The devices that sent lately."""

    def __init__(self) -> None:
        self._due: dict[Key, float] = {}

    def __len__(self) -> int:
        return len(self._due)

    def trial(self, now: float) -> "Trial":
        """Begin to judge a batch.

        Args:
            now: monotonic seconds.
        """
        return Trial(MappingProxyType(self._due), now)

    def settle(self, trial: "Trial") -> None:
        """Take over what a batch did, once it is durable."""
        for key, due in trial.due.items():
            # Put behind the others: the first are those that were heard from longest ago.
            self._due.pop(key, None)
            self._due[key] = due
        while self._due and (
            len(self._due) > MOST_DEVICES or next(iter(self._due.values())) <= trial.now
        ):
            del self._due[next(iter(self._due))]


class Trial:
    """One batch, which may yet be handed in again.

    Args:
        before: the times as the batches before left them.
        now: monotonic seconds.

    Attributes:
        due: the times that this batch moved.
        now: as given.
    """

    def __init__(self, before: Mapping[Key, float], now: float) -> None:
        self._before, self.now = before, now
        self.due: dict[Key, float] = {}

    def allows(self, task: str, device: str, *, spacing_s: float, burst: int) -> bool:
        """Whether a device may send an update now; if so, it is counted.

        Args:
            task: which task.
            device: which device.
            spacing_s: least time between two updates in the long run; 0 for no limit.
            burst: updates that may come at once, 1 or more.
        """
        if spacing_s <= 0.0:
            return True
        key = task, device
        due = self.due.get(key, self._before.get(key, self.now))
        if due > self.now + burst * spacing_s:
            due = self.due[key] = self.now + burst * spacing_s
        if due > self.now + (burst - 1) * spacing_s:
            return False
        self.due[key] = max(due, self.now) + spacing_s
        return True
