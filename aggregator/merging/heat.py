"""FedSubAvg: a row is corrected for how few devices of the fleet touch it.

Ding et al., "Federated Submodel Optimization for Hot and Cold Data Features", NeurIPS 2022,
algorithm 1: with N devices of which n_r touch row r, the buffer's mean of row r is multiplied by
N / n_r. A row that one device in a hundred knows is in few buffers, and each time averaged with
those that do not know it; the factor makes up for both, so that in expectation the row moves as if
only its own devices were asked. What every device touches keeps its mean. ``heat_limit`` bounds
the factor, which the paper does not: in a buffer of 20, one update with a factor of 1000 would move
its row by 50 times what the device learned.

Neither count is known to a server that sees sparse deltas, so both are estimated from the devices
seen, each counted once however often it sends: HyperLogLog (Flajolet et al., "HyperLogLog: the
analysis of a near-optimal cardinality estimation algorithm", 2007, figure 3) with 64 registers a
row. Up to about 100 devices the estimate is nearly exact, beyond it has a standard error of 13 %.
"""

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from math import log

import numpy as np
from numpy.typing import NDArray

from aggregator.merging.average import Average
from aggregator.merging.part import Part
from aggregator.merging.state import ServerState, recall
from aggregator.merging.step import Change
from wire.delta import RowBlock

__all__ = ["SLOTS", "correct", "estimate", "place"]

SLOTS = ("heat", "heat_devices")
REGISTERS = 64
# Sums of 64 powers of two down to 2 ** -MAX_RANK are exact in float64, in whatever order.
MAX_RANK = 40
_BIAS = 0.709
_POWERS = 2.0 ** -np.arange(MAX_RANK + 1, dtype=np.float64)
_LINEAR = np.array([0.0, *(REGISTERS * log(REGISTERS / empty) for empty in range(1, 65))])


def correct(
    state: ServerState, parts: Sequence[Part], averages: Mapping[str, Average], limit: float
) -> tuple[dict[str, Average], dict[str, Change]]:
    """The means with their rows corrected, and what to remember of who touches what.

    Args:
        state: the current version.
        parts: the buffer; its devices are counted before the factor is taken.
        averages: its means over the whole buffer.
        limit: largest factor, 1 or more.
    """
    places = [place(part.device) for part in parts]
    fleet = recall(state, "heat_devices", (REGISTERS,), np.uint8)
    for register, rank in places:
        fleet[register] = max(fleet[register], rank)
    devices = float(estimate(fleet[None])[0])
    corrected = dict(averages)
    changes = {"heat_devices": Change.whole(fleet)}
    for name, average in averages.items():
        if average.rows is None:
            continue
        shape = (len(state.parameters[name]), REGISTERS)
        registers = recall(state, f"heat/{name}", shape, np.uint8, average.rows)
        for part, (register, rank) in zip(parts, places, strict=True):
            block = part.delta.get(name)
            if isinstance(block, RowBlock):
                at = np.searchsorted(average.rows, block.rows)
                registers[at, register] = np.maximum(registers[at, register], rank)
        changes[f"heat/{name}"] = Change(average.rows, registers, shape)
        factors = np.clip(devices / estimate(registers), 1.0, limit)
        corrected[name] = Average(average.rows, average.values * factors[:, None])
    return corrected, changes


def place(device: str) -> tuple[int, int]:
    """Where a device is counted: a register, and the rank that it shows there (1 or more)."""
    number = int.from_bytes(blake2b(device.encode(), digest_size=8).digest(), "big")
    rest = number // REGISTERS
    rank = (rest & -rest).bit_length() or MAX_RANK
    return number % REGISTERS, min(rank, MAX_RANK)


def estimate(registers: NDArray[np.uint8]) -> NDArray[np.float64]:
    """How many devices some sets of registers have seen.

    Args:
        registers: uint8 [n, 64], the largest rank shown in each register.

    Returns:
        float64 [n]; 0 where none was seen.
    """
    raw = _BIAS * REGISTERS**2 / _POWERS[registers].sum(axis=1)
    empty = (registers == 0).sum(axis=1)
    few = (empty > 0) & (raw <= 2.5 * REGISTERS)
    counts: NDArray[np.float64] = np.where(few, _LINEAR[empty], raw)
    return counts
