"""Places that both sides draw from a seed, so that they need not be sent.

To draw n of U places, cut [0, U) into n stretches, the i-th (from 0) from ``i * U // n`` to
``(i + 1) * U // n``, and take from each the place at ``z_i`` modulo its length, where z_i is the
i-th output of SplitMix64 started from the seed (Steele, Lea and Flood, "Fast Splittable
Pseudorandom Number Generators", OOPSLA 2014), all of it modulo 2**64:

    z = seed + (i + 1) * 0x9E3779B97F4A7C15
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9
    z = (z ^ z >> 27) * 0x94D049BB133111EB
    z_i = z ^ z >> 31

The places come out in order and none twice. A place in a stretch of s is drawn with probability
1 / s, to within s / 2**64.
"""

import numpy as np
from numpy.typing import NDArray

__all__ = ["SEED_BITS", "draw"]

SEED_BITS = 32


def draw(seed: int, count: int, universe: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw ``count`` of the places 0 to ``universe`` - 1.

    Args:
        seed: 0 to 2**32 - 1.
        count: 1 to ``universe``.
        universe: at most 2**31.

    Returns:
        int64 [count] increasing places, and int64 [count] the lengths of their stretches, which are
        the inverses of the probabilities to be drawn.
    """
    edges = np.arange(count + 1, dtype=np.int64) * universe // count
    lengths = np.diff(edges)
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(
            0x9E3779B97F4A7C15
        )
        z = (z ^ z >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ z >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return edges[:-1] + (z % lengths.astype(np.uint64)).astype(np.int64), lengths
