"""CA2FL: what a device said last stands in for what it would say now.

Wang et al., "Tackling the Data Heterogeneity in Asynchronous Federated Learning with Cached Update
Calibration", ICLR 2024, algorithm 2. The server remembers the newest delta h_i of every device. A
buffer S of M updates gives the server's optimizer

    v = h + (1 / M) * sum over S of (D_i - h_i),    h = (1 / N) * sum over all N devices of h_i

so that devices which are not in the buffer have their say. Then h_i becomes D_i for those that are.

- Neither the deltas of all devices nor N are kept here: the memory holds the sum of the h_i and the
  number of devices heard from since this kind was chosen; h_i is the contribution's ``previous``.
- On item tables v is taken at the rows that the buffer touches, so that a merge costs no more than
  those, and a row nobody touched stays. The sum is kept for all rows.
- Updates are weighed alike and regardless of their staleness, as in the paper. A device that is in
  the buffer twice is calibrated twice by the same h_i, and its newest update replaces it.
- While every device is new, h and h_i are zero and v is FedAvg's mean; so it is whenever the buffer
  holds one update of every device, whatever they said before.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from aggregator.merging.average import Average, union
from aggregator.merging.part import Part, fresh_weights, plain_parts
from aggregator.merging.rule import Rule
from aggregator.merging.staleness import ages
from aggregator.merging.state import Contribution, MemoryArray, ServerState, recall
from aggregator.merging.step import Change
from wire.delta import Delta, RowBlock, Tensor

__all__ = ["SLOTS", "calibrate", "weigh"]

SLOTS = ("cached", "cached_devices", "cached_since")
_NOTHING: Delta = {}


def weigh(state: ServerState, batch: Sequence[Contribution], rule: Rule) -> list[Part]:
    """The parts of a buffer, each weighing 1."""
    ages(state.version, batch)
    return plain_parts(batch, fresh_weights(batch, rule))


def calibrate(
    state: ServerState, batch: Sequence[Contribution], averages: Mapping[str, Average]
) -> tuple[dict[str, Average], dict[str, Change]]:
    """The means with the cached updates' correction, and what to remember of the buffer.

    Args:
        state: the current version.
        batch: the buffer, in the order of the ledger ids.
        averages: its means.
    """
    since = int(recall(state, "cached_since", (1,), np.int64)[0])
    if "cached_since" not in state.memory:
        since = state.version
    cached = [_cached(contribution, since) for contribution in batch]
    newest: dict[str, tuple[Delta, Delta | None]] = {}
    for contribution, before in zip(batch, cached, strict=True):
        newest[contribution.device] = (contribution.delta, before)
    devices = recall(state, "cached_devices", (1,), np.int64)
    devices += sum(before is None for _, before in newest.values())
    calibrated = {
        name: _calibrated(state, name, average, cached, int(devices[0]))
        for name, average in averages.items()
    }
    changes = _remember(state, [(delta, before or _NOTHING) for delta, before in newest.values()])
    changes["cached_devices"] = Change.whole(devices)
    changes["cached_since"] = Change.whole(np.array([since], np.int64))
    return calibrated, changes


def _cached(contribution: Contribution, since: int) -> Delta | None:
    if contribution.previous is not None and contribution.previous_version < 1:
        raise ValueError(f"update {contribution.id} does not say which version took its previous")
    # What was merged before this kind was chosen is not in the sum.
    return contribution.previous if contribution.previous_version > since else None


def _calibrated(
    state: ServerState,
    name: str,
    average: Average,
    cached: Sequence[Delta | None],
    devices: int,
) -> Average:
    shape, rows = state.parameters[name].shape, average.rows
    mean = recall(state, f"cached/{name}", shape, np.float32, rows) / np.float64(devices)
    own = np.zeros_like(mean)
    for delta in cached:
        if delta is not None and name in delta:
            own += _at(delta[name], rows)
    return Average(rows, average.values + mean - own / len(cached))


def _remember(state: ServerState, replaced: Sequence[tuple[Delta, Delta]]) -> dict[str, Change]:
    changes = {}
    for name in dict.fromkeys(name for pair in replaced for delta in pair for name in delta):
        tensors = [(new.get(name), old.get(name)) for new, old in replaced]
        blocks = [t for pair in tensors for t in pair if isinstance(t, RowBlock)]
        rows = union([block.rows for block in blocks]) if blocks else None
        shape = state.parameters[name].shape
        total = recall(state, f"cached/{name}", shape, np.float32, rows).astype(np.float64)
        for new, old in tensors:
            total += _at(new, rows)
            total -= _at(old, rows)
        changes[f"cached/{name}"] = Change(rows, total.astype(np.float32), shape)
    return changes


def _at(tensor: Tensor | None, rows: NDArray[np.int64] | None) -> MemoryArray | float:
    if tensor is None:
        return 0.0
    if not isinstance(tensor, RowBlock):
        return tensor
    if rows is None:
        raise ValueError("a parameter has rows in one delta and is dense in another")
    return tensor.at(rows)
