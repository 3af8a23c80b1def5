"""An update in a merge: its delta and what it weighs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from aggregator.merging.choices import Weighting
from aggregator.merging.participation import participation_weights
from aggregator.merging.rule import Rule
from aggregator.merging.state import Contribution
from wire.delta import Delta

__all__ = ["Part", "fresh_weights", "plain_parts"]


@dataclass(frozen=True, slots=True)
class Part:
    """One update of a buffer, weighed.

    Attributes:
        device: who sent it.
        delta: what it adds.
        fresh: what it weighs in the divisor, as if it were fresh; 0 or more.
        weight: what it weighs in the sum.
        row_weights: for a table whose rows weigh differently, float64 [n] in the order of the rows
            of the delta's block; it replaces ``weight`` there.
    """

    device: str
    delta: Delta
    fresh: float
    weight: float
    row_weights: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)


def fresh_weights(batch: Sequence[Contribution], rule: Rule) -> NDArray[np.float64]:
    """What each update weighs before its staleness is looked at, float64 [len(batch)].

    One each, or its examples, times the participation correction where the rule has one.
    """
    weights = np.ones(len(batch))
    if rule.weighting is Weighting.EXAMPLES:
        weights = np.array([contribution.examples for contribution in batch], np.float64)
    if rule.needs_device_updates:
        weights *= participation_weights(
            np.array([contribution.device_updates for contribution in batch], np.int64),
            exponent=rule.participation_exponent,
            limit=rule.participation_limit,
        )
    return weights


def plain_parts(batch: Sequence[Contribution], weights: NDArray[np.float64]) -> list[Part]:
    """Parts that weigh the same in the sum and in the divisor."""
    return [
        Part(contribution.device, contribution.delta, weight, weight)
        for contribution, weight in zip(batch, weights.tolist(), strict=True)
    ]
