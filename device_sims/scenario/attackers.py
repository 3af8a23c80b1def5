"""The table [attackers]: devices that send something else than they learned."""

from dataclasses import dataclass, replace
from enum import StrEnum

from device_sims.scenario.table import Checks, read_table

__all__ = ["Attack", "Attackers", "read_attackers"]


class Attack(StrEnum):
    """What hostile devices send.

    ``sign-flip``: the opposite of what they learned. ``scale``: that, ``factor`` times. ``noise``:
    that with normal noise, ``factor`` times as large as the values are on average. ``promote``:
    that, but for the row of one item, which each moves towards its own user vector. ``collude``:
    likewise, but they share their user vectors, and all move the row to where the mean of them
    points.
    """

    SIGN_FLIP = "sign-flip"
    SCALE = "scale"
    NOISE = "noise"
    PROMOTE = "promote"
    COLLUDE = "collude"

    @property
    def promotes(self) -> bool:
        """Whether it is about one item."""
        return self in (Attack.PROMOTE, Attack.COLLUDE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attackers:
    """Who is hostile, and what they do.

    Attributes:
        share: of the devices that are hostile, 0 to 1.
        kind: what they do.
        factor: see ``Attack``; promote, collude: how often they take the step to where the row is
            to be, for a merge divides it by the updates of a buffer. sign-flip ignores it.
        quiet: promote, collude: the row moves no further than the longest of their other rows.
        item: promote, collude: which item; -1 for one that few users know.
        seed: who is hostile.
    """

    share: float = 0.0
    kind: Attack = Attack.SIGN_FLIP
    factor: float = 10.0
    quiet: bool = False
    item: int = -1
    seed: int = 0


def read_attackers(given: object) -> Attackers:
    """Read the table.

    Raises:
        ScenarioError: names the key, the value and what was expected.
    """
    attackers = read_table(Attackers, given, "attackers")
    checks = Checks(attackers, "attackers")
    checks.number("share", 0.0, 1.0)
    checks.number("factor", 0.0, 1e6)
    checks.integer("item", -1, 2**31 - 1)
    checks.integer("seed", 0, 2**63 - 1)
    kind = Attack(checks.choice("kind", tuple(Attack)))
    return replace(attackers, kind=kind)
