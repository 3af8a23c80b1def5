"""Row-wise staleness: only the versions in which a row changed make an update to it stale.

A model of a million items moves on with every merge, but a cold row stands still for most of them.
What a device learned about such a row is as good as new, however many versions went by. So the
staleness of an update at a row is the number of versions since its base in which that row changed.
This is our own hypothesis, not a published rule; dense parameters keep the version's staleness.

The memory holds for each row the newest versions that changed it. Where these do not reach back to
the base, or the record began after it, versions that cannot be told count as changes: a row is
never taken for fresher than it is, and never for staler than the model.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from aggregator.merging.average import Average
from aggregator.merging.state import ServerState, recall
from aggregator.merging.step import Change

__all__ = ["SLOTS", "VERSIONS_KEPT", "record", "row_ages"]

VERSIONS_KEPT = 8
SLOTS = ("row_versions", "row_versions_since")


def row_ages(
    state: ServerState, name: str, rows: NDArray[np.int64], base_version: int
) -> NDArray[np.int64]:
    """The staleness of an update at some rows of a table.

    Args:
        state: the current version.
        name: of the table.
        rows: int64 [n], increasing.
        base_version: of the update, at most the state's version.

    Returns:
        int64 [n], from 0 to state.version - base_version.
    """
    since = int(state.memory["row_versions_since"][0]) if _begun(state) else state.version
    before = max(0, since - base_version)
    changed = (_newest(state, name, rows) > base_version).sum(axis=1)
    whole = changed == VERSIONS_KEPT
    return np.where(whole, state.version - base_version, before + changed).astype(np.int64)


def record(state: ServerState, averages: Mapping[str, Average]) -> dict[str, Change]:
    """What to remember of a merge: the version that it makes, at the rows that it changes."""
    changes = {}
    if not _begun(state):
        changes["row_versions_since"] = Change.whole(np.array([state.version], np.int64))
    for name, average in averages.items():
        if average.rows is not None:
            old = _newest(state, name, average.rows)
            new = np.roll(old, 1, axis=1)
            new[:, 0] = state.version + 1
            changes[f"row_versions/{name}"] = Change(average.rows, new, _shape(state, name))
    return changes


def _begun(state: ServerState) -> bool:
    return "row_versions_since" in state.memory


def _newest(state: ServerState, name: str, rows: NDArray[np.int64]) -> NDArray[np.uint32]:
    """Newest first, uint32 [len(rows), VERSIONS_KEPT]; 0 stands for none."""
    return recall(state, f"row_versions/{name}", _shape(state, name), np.uint32, rows)


def _shape(state: ServerState, name: str) -> tuple[int, int]:
    return len(state.parameters[name]), VERSIONS_KEPT
