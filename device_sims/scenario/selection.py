"""The table [selection]: which devices train when, and from which version."""

from dataclasses import dataclass

from device_sims.scenario.table import Checks, read_table

__all__ = ["Selection", "most_behind", "read_selection"]

MARGIN = 10
"""So many of the publications that are kept may be gone before a device that is chosen has one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Who trains, and from what.

    Attributes:
        places: devices at work at a time; 0: each trains when the task's interval has passed,
            whatever the others do. Otherwise it also waits until a place is free.
        rounds: places are given all at once, and the next ones when there is a newer version:
            synchronous rounds. They go with ``aggregation.kind`` fedavg, whose ``buffer_size`` is
            how many updates a round waits for and ``max_wait_s`` for how long. With more places
            than that the slowest are not waited for; ``admission.max_staleness`` 0 refuses what
            they send too late.
        behind_versions: [low, high]: a local update starts from a version that is so many versions
            old, drawn evenly for each, or from the first one: as if it had taken that long.
    """

    places: int = 0
    rounds: bool = False
    behind_versions: tuple[int, ...] = (0, 0)


def most_behind(keep_publications: int) -> int:
    """The largest of ``behind_versions`` where so many publications are kept."""
    return max(0, keep_publications - MARGIN)


def read_selection(given: object, *, keep_publications: int) -> Selection:
    """Read the table.

    Args:
        given: the decoded table.
        keep_publications: so many of the newest versions can be had.

    Raises:
        ScenarioError: names the key, the value and what was expected.
    """
    selection = read_table(Selection, given, "selection")
    checks = Checks(selection, "selection")
    checks.integer("places", 0, 10_000_000)
    if selection.rounds and not selection.places:
        raise checks.refusal("places", selection.places, "at least 1 with rounds")
    behind = selection.behind_versions
    whole = all(isinstance(bound, int) and not isinstance(bound, bool) for bound in behind)
    most = most_behind(keep_publications)
    if len(behind) != 2 or not whole or not 0 <= behind[0] <= behind[1] <= most:
        expected = (
            f"[low, high], two whole numbers from 0 to {most} in this order, {MARGIN} less than "
            f"service.keep_publications"
        )
        raise checks.refusal("behind_versions", list(behind), expected)
    return selection
