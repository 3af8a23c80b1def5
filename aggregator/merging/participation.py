"""Participation correction: who is seldom heard from weighs more.

A device that sends ten times as often as another pulls the model ten times as hard. Weighing by the
inverse of how often a device takes part undoes that; unbounded, one rare update would decide alone.
The idea and the bound are those of FedAU (Wang and Ji, "A Lightweight Method for Tackling Unknown
Participation Statistics in Federated Averaging", ICLR 2024, algorithm 2 with its cutoff interval);
ours takes the count of earlier updates for the frequency, and compares within the buffer, where the
weights are normalised. So a buffer of devices that sent equally many is FedAvg, and no step grows.
"""

import numpy as np
from numpy.typing import NDArray

__all__ = ["participation_weights"]


def participation_weights(
    device_updates: NDArray[np.int64], *, exponent: float, limit: float
) -> NDArray[np.float64]:
    """The weights (1 + device_updates) ** -exponent, relative to the smallest and at most limit.

    Args:
        device_updates: int64 [n], updates that each update's device sent before, 0 or more.
        exponent: 0 or more; 0 gives everybody 1, 1 is the inverse frequency.
        limit: 1 or more.

    Returns:
        float64 [n] in [1, limit], 1 for the device that sent most.
    """
    if not len(device_updates):
        return np.zeros(0)
    most = 1.0 + float(device_updates.max())
    relative = [(most / (1.0 + float(count))) ** exponent for count in device_updates]
    return np.minimum(np.array(relative, np.float64), limit)
