"""Which merges a version was made of: not always all that came before it.

The counter only grows, but a version may go back to an older one, or stand for its whole past
without some updates. Such a version has an *origin*. What a version is made of is then its
*ancestry*: stretches of versions, each without the updates that were left out of it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

__all__ = ["Ancestry", "Exclusion", "Origin", "OriginKind", "Stretch", "ancestry_of", "up_to"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exclusion:
    """Updates that are left out: all that fit every condition which is given.

    Attributes:
        devices: of these devices, in order; of all devices if there is none.
        since: received at or after it, in seconds since 1970; None for no bound.
        until: received before it; None for no bound.
    """

    devices: tuple[str, ...] = ()
    since: float | None = None
    until: float | None = None

    def __post_init__(self) -> None:
        """Refuse with ValueError what leaves out everything, or nothing."""
        if not self.devices and self.since is None and self.until is None:
            raise ValueError("nothing is left out; name a device or a time")
        if self.since is not None and self.until is not None and self.since >= self.until:
            raise ValueError("the time range is empty; since must be before until")
        object.__setattr__(self, "devices", tuple(sorted(set(self.devices))))

    def covers(self, device: str, received_at: float) -> bool:
        """Whether an update is one of them."""
        return (
            (not self.devices or device in self.devices)
            and (self.since is None or received_at >= self.since)
            and (self.until is None or received_at < self.until)
        )

    def describe(self) -> str:
        """The updates in words."""
        whose = f"of {', '.join(self.devices)}" if self.devices else "of all devices"
        since = "" if self.since is None else f" since {self.since:.0f}"
        until = "" if self.until is None else f" until {self.until:.0f}"
        return f"updates {whose}{since}{until}"

    def to_dict(self) -> dict[str, Any]:
        """As a JSON-ready map."""
        return {"devices": list(self.devices), "since": self.since, "until": self.until}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """What ``to_dict`` gave."""
        devices, since, until = (values[name] for name in ("devices", "since", "until"))
        return cls(devices=tuple(devices), since=since, until=until)


class OriginKind(StrEnum):
    """How a version that no merge made came to be."""

    ROLLBACK = "rollback"
    PROMOTE = "promote"


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a version comes from that no merge made.

    Attributes:
        kind: rollback or promote.
        of: the version whose parameters and memory it has; with a promotion, whose past was folded
            again, and that is the version before.
        before: the digest of the version before, so that its own covers that too.
        without: what was left out of that past; rollback: None.
        lineage: id of the lineage that was promoted, if one was.
    """

    kind: OriginKind
    of: int
    before: str
    without: Exclusion | None = None
    lineage: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """As a JSON-ready map."""
        return {
            "kind": self.kind.value,
            "of": self.of,
            "before": self.before,
            "without": None if self.without is None else self.without.to_dict(),
            "lineage": self.lineage,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """What ``to_dict`` gave."""
        without = values["without"]
        return cls(
            kind=OriginKind(values["kind"]),
            of=values["of"],
            before=values["before"],
            without=None if without is None else Exclusion.from_dict(without),
            lineage=values["lineage"],
        )


@dataclass(frozen=True, slots=True)
class Stretch:
    """Successive versions, from ``first`` to ``last``, and what was left out of their merges."""

    first: int
    last: int
    without: frozenset[Exclusion] = frozenset()


Ancestry = tuple[Stretch, ...]
"""Stretches of increasing versions, from version 0 on."""


def ancestry_of(
    origins: Mapping[int, Origin], version: int, without: Sequence[Exclusion] = ()
) -> Ancestry:
    """What a version is made of.

    Args:
        origins: those of the task's versions that have one.
        version: which.
        without: what else shall be left out of its whole past.
    """
    found: list[Stretch] = []
    last, left_out = version, frozenset(without)
    for turn in sorted((v for v in origins if v <= version), reverse=True):
        if turn > last:
            continue  # Of a past that was gone back on.
        origin = origins[turn]
        if origin.without is None:
            found.append(Stretch(turn, last, left_out))
            last = origin.of
        else:
            # Waiting updates that were left out too count as taken by the version itself.
            found.append(Stretch(turn + 1, last, left_out))
            last, left_out = turn, left_out | {origin.without}
    found.append(Stretch(0, last, left_out))
    return tuple(stretch for stretch in reversed(found) if stretch.first <= stretch.last)


def up_to(ancestry: Ancestry, version: int) -> Ancestry:
    """The part of an ancestry that had come about by a version."""
    return tuple(
        Stretch(stretch.first, min(stretch.last, version), stretch.without)
        for stretch in ancestry
        if stretch.first <= version
    )
