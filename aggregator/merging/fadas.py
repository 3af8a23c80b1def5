"""FADAS: a buffer's plain mean, and a step that shrinks when something in it is very stale.

Wang et al., "FADAS: Towards Federated Adaptive Asynchronous Optimization", ICML 2024
(arXiv:2407.18365), algorithm 1 with the delay-adaptive learning rate of section 4. With the largest
staleness t of the buffer and the threshold c (our ``delay_threshold``),

    rate = eta if t <= c, otherwise eta / t

as in the authors' experiments (yujiaw98/FADAS, g_delay_adaptive.py). The paper's text has
min(eta, 1 / t), which asks nothing of the small rates that adaptive optimizers have.

Updates are not weighed by their staleness one by one. The paper's optimizer is AMSGrad, the default
of this kind (``optimizers``); the rate can be had with any.
"""

from collections.abc import Sequence

from aggregator.merging.part import Part, fresh_weights, plain_parts
from aggregator.merging.rule import Rule
from aggregator.merging.staleness import ages
from aggregator.merging.state import Contribution, ServerState

__all__ = ["learning_rate", "weigh"]


def weigh(state: ServerState, batch: Sequence[Contribution], rule: Rule) -> list[Part]:
    """The parts of a buffer, each with its fresh weight."""
    ages(state.version, batch)
    return plain_parts(batch, fresh_weights(batch, rule))


def learning_rate(state: ServerState, batch: Sequence[Contribution], rule: Rule) -> float:
    """The delay-adaptive rate of a buffer."""
    oldest = int(ages(state.version, batch).max(initial=0))
    rate = rule.server_learning_rate
    return rate if oldest <= rule.delay_threshold else rate / oldest
