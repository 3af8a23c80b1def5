"""Synchronous federated averaging, the reference that the other kinds are compared with.

McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data",
AISTATS 2017, algorithm 1: the mean of the models that one cohort trained from one version, weighted
by their examples; with deltas, the model plus their mean. An update that started from an earlier
version belongs to no cohort any more: it is left out, of the sum and of the divisor, and the rows
that only it touches stay. So this kind fits a fleet that is asked in rounds.
"""

from collections.abc import Sequence

from aggregator.merging.part import Part, fresh_weights, plain_parts
from aggregator.merging.rule import Rule
from aggregator.merging.staleness import ages
from aggregator.merging.state import Contribution, ServerState

__all__ = ["weigh"]


def weigh(state: ServerState, batch: Sequence[Contribution], rule: Rule) -> list[Part]:
    """The parts of a buffer; those of stale updates weigh 0."""
    return plain_parts(batch, fresh_weights(batch, rule) * (ages(state.version, batch) == 0))
