"""Buffered asynchronous merging.

FedBuff (Nguyen et al., "Federated Learning with Buffered Asynchronous Aggregation", AISTATS 2022,
algorithm 1). With the updates i of a buffer, their deltas D_i, their weights when fresh e_i (1, or
the number of examples) and the staleness weight s, the server's optimizer is given

    (sum of e_i * s(staleness_i) * D_i) / (sum of e_i)

The divisor is what the buffer would weigh if every update were fresh. So zero staleness is FedAvg
exactly, and a buffer in which everything is stale makes a shorter step; dividing by the staleness
weights themselves would cancel them there.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from aggregator.merging.part import Part, fresh_weights
from aggregator.merging.row_staleness import row_ages
from aggregator.merging.rule import Rule
from aggregator.merging.staleness import StalenessWeight, ages, staleness_weight
from aggregator.merging.state import Contribution, ServerState
from wire.delta import RowBlock

__all__ = ["stale_parts", "weigh"]


def weigh(state: ServerState, batch: Sequence[Contribution], rule: Rule) -> list[Part]:
    """The parts of a buffer, each weighing e_i * s(staleness_i)."""
    return stale_parts(state, batch, fresh_weights(batch, rule).tolist(), rule)


def stale_parts(
    state: ServerState, batch: Sequence[Contribution], fresh: Sequence[float], rule: Rule
) -> list[Part]:
    """Parts whose weight is their fresh one times the rule's staleness weight."""
    weight_of = staleness_weight(rule)
    weights = weight_of(ages(state.version, batch)).tolist()
    return [
        Part(
            contribution.device,
            contribution.delta,
            alone,
            alone * weight,
            _row_weights(state, contribution, alone, weight_of) if rule.row_staleness else {},
        )
        for contribution, alone, weight in zip(batch, fresh, weights, strict=True)
    ]


def _row_weights(
    state: ServerState, contribution: Contribution, fresh: float, weight_of: StalenessWeight
) -> dict[str, NDArray[np.float64]]:
    return {
        name: fresh * weight_of(row_ages(state, name, tensor.rows, contribution.base_version))
        for name, tensor in contribution.delta.items()
        if isinstance(tensor, RowBlock)
    }
