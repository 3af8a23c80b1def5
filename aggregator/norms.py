"""How large accepted updates usually are: what the bound on the next one is made of.

A histogram over the logarithm of the norm, which forgets: whenever it holds twice ``WINDOW`` norms,
every count is halved. So it follows a fleet whose updates shrink or grow, takes the same few bytes
however many updates there were, and is a function of the accepted norms in their order. The ledger
keeps its counts among its running totals, written with the updates that they count, and an engine
that starts goes on from there.

A quantile of at most a half is what a minority of hostile devices cannot move far. Andrew et al.,
"Differentially Private Learning with Adaptive Clipping", NeurIPS 2021, follow a quantile of the
norms by steps instead; counts do without a step size, and start at the right scale.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["Norms"]

BUCKETS_A_DOUBLING = 8
LARGEST_EXPONENT = 256
"""Norms beyond 2^256 or below 2^-256 count as that; float32 values make none."""
WINDOW = 1_000


@dataclass(frozen=True, slots=True)
class Norms:
    """Norms that were accepted; adding one makes another value.

    Attributes:
        counts: how many were in which bucket, each above 0. Bucket b holds the norms from 2^(b/8)
            to below 2^((b+1)/8), which are 9 % apart.
    """

    counts: Mapping[int, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """How many norms are remembered, at most twice ``WINDOW``."""
        return sum(self.counts.values())

    def plus(self, norm: float) -> "Norms":
        """With one more norm, 0 or more; a norm of zero says nothing and is not counted."""
        if norm <= 0.0:
            return self
        bucket = _bucket(norm)
        counts = {**self.counts, bucket: self.counts.get(bucket, 0) + 1}
        if sum(counts.values()) >= 2 * WINDOW:
            counts = {at: count // 2 for at, count in counts.items() if count > 1}
        return Norms(counts)

    def quantile(self, share: float) -> float:
        """The upper end of the bucket that holds a quantile.

        Args:
            share: of the norms that are not larger, above 0 and at most 1.

        Raises:
            ValueError: no norm is remembered.
        """
        below, wanted = 0, share * self.total
        for bucket in sorted(self.counts):
            below += self.counts[bucket]
            if below >= wanted:
                return float(2.0 ** ((bucket + 1) / BUCKETS_A_DOUBLING))
        raise ValueError("no norm is remembered")

    def changes(self, later: "Norms") -> dict[int, int]:
        """What must be added to these counts to get those of a later value; by bucket, never 0."""
        buckets = sorted({*self.counts, *later.counts})
        found = {at: later.counts.get(at, 0) - self.counts.get(at, 0) for at in buckets}
        return {at: change for at, change in found.items() if change}


def _bucket(norm: float) -> int:
    exponent = min(max(math.log2(norm), -LARGEST_EXPONENT), LARGEST_EXPONENT)
    return math.floor(exponent * BUCKETS_A_DOUBLING)
