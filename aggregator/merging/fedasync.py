"""FedAsync: every update is mixed into the model alone.

Xie, Koyejo and Gupta, "Asynchronous Federated Optimization", 2019 (arXiv:1903.03934), algorithm 1:

    x_t = (1 - alpha_t) * x_(t-1) + alpha_t * x_new,    alpha_t = alpha * s(staleness)

where x_new is the model that the device trained and alpha is our ``server_learning_rate``. For a
fresh update, x_new = x_(t-1) + D, that is x_t = x_(t-1) + alpha_t * D. We take the same form for a
stale one: its delta is put on the current model before the two are mixed. The original takes the
base version plus D, which also pulls the model back towards that version, by as much as others
taught it meanwhile, in rows that the device may never have seen.

Staleness is counted as everywhere here: 0 for a fresh update, so that alpha_t = alpha.
"""

from collections.abc import Sequence

from aggregator.merging.fedbuff import stale_parts
from aggregator.merging.part import Part
from aggregator.merging.rule import Rule
from aggregator.merging.state import Contribution, ServerState

__all__ = ["weigh"]


def weigh(state: ServerState, batch: Sequence[Contribution], rule: Rule) -> list[Part]:
    """The part of the one update, which weighs s(staleness).

    Raises:
        ValueError: there are several: mixing them in one version would depend on their order.
    """
    if len(batch) > 1:
        raise ValueError(f"fedasync merges one update at a time, not {len(batch)}")
    return stale_parts(state, batch, [1.0] * len(batch), rule)
