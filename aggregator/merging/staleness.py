"""How much an update still counts when the model has moved on since its device started.

Staleness is the current version minus the base version, counted *before* the merge adds one: an
update whose base is the current version has staleness 0 and weight 1. Projects that count after the
merge halve a fresh update under the same formula.
"""

from collections.abc import Callable

__all__ = ["StalenessWeight", "constant", "polynomial"]

StalenessWeight = Callable[[int], float]
"""From a staleness (0 or more) to a weight in (0, 1], with 1 for staleness 0."""


def constant() -> StalenessWeight:
    """Every update weighs 1, however stale.

    The ``Constant`` strategy of Xie, Koyejo and Gupta, "Asynchronous Federated Optimization",
    2019 (arXiv:1903.03934), section 5.2.
    """
    return lambda staleness: _checked(staleness) ** 0.0


def polynomial(exponent: float) -> StalenessWeight:
    """The weight (1 + staleness) ** -exponent.

    With exponent 1/2 this is the staleness scaling of FedBuff: Nguyen et al., "Federated Learning
    with Buffered Asynchronous Aggregation", AISTATS 2022 (arXiv:2106.06639), section 5 and
    appendix. The family is the ``Polynomial`` strategy of Xie et al. 2019.

    Args:
        exponent: 0 or more; 0 equals ``constant()``.
    """
    return lambda staleness: _checked(staleness) ** -exponent


def _checked(staleness: int) -> float:
    if staleness < 0:
        raise ValueError(f"staleness is {staleness}; an update cannot come from a later version")
    return 1.0 + staleness
