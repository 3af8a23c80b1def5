"""How much an update still counts when the model has moved on since its device started.

Staleness is the current version minus the base version, counted *before* the merge adds one: an
update whose base is the current version has staleness 0 and weight 1. Projects that count after the
merge halve a fresh update under the same formula. A weight takes and gives arrays, because a row of
an item table can have a staleness of its own (``row_staleness``).
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from aggregator.merging.choices import Staleness
from aggregator.merging.rule import Rule
from aggregator.merging.state import Contribution

__all__ = ["StalenessWeight", "ages", "constant", "hinge", "polynomial", "staleness_weight"]

Integers = NDArray[np.int64]
Weights = NDArray[np.float64]
StalenessWeight = Callable[[Integers], Weights]
"""From stalenesses (0 or more, int64 [n]) to weights in [0, 1], float64 [n], with 1 for 0."""


def constant() -> StalenessWeight:
    """Every update weighs 1, however stale.

    The ``Constant`` strategy of Xie, Koyejo and Gupta, "Asynchronous Federated Optimization",
    2019 (arXiv:1903.03934), section 5.2.
    """
    return lambda staleness: np.ones(len(staleness))


def polynomial(exponent: float) -> StalenessWeight:
    """The weight (1 + staleness) ** -exponent.

    With exponent 1/2 this is the staleness scaling of FedBuff: Nguyen et al., "Federated Learning
    with Buffered Asynchronous Aggregation", AISTATS 2022 (arXiv:2106.06639), section 5 and
    appendix. The family is the ``Polynomial`` strategy of Xie et al. 2019.

    Args:
        exponent: 0 or more; 0 equals ``constant()``.
    """
    return _each(lambda staleness: (1.0 + staleness) ** -exponent)


def hinge(slope: float, delay: int) -> StalenessWeight:
    """The weight 1 up to a delay, then 1 / (1 + slope * (staleness - delay)).

    The ``Hinge`` strategy of Xie et al. 2019, section 5.2, with a = slope and b = delay.

    Args:
        slope: above 0.
        delay: versions, 0 or more.
    """
    return _each(lambda staleness: 1.0 / (1.0 + slope * max(0, staleness - delay)))


def staleness_weight(rule: Rule) -> StalenessWeight:
    """The weight that a rule names."""
    if rule.staleness is Staleness.POLYNOMIAL:
        return polynomial(rule.staleness_exponent)
    if rule.staleness is Staleness.HINGE:
        return hinge(rule.staleness_slope, rule.staleness_delay)
    return constant()


def ages(version: int, batch: Sequence[Contribution]) -> Integers:
    """The staleness of each update, int64 [len(batch)].

    Raises:
        ValueError: one comes from a version later than ``version``.
    """
    found = np.array([version - contribution.base_version for contribution in batch], np.int64)
    if len(found) and found.min() < 0:
        raise ValueError(
            f"staleness is {found.min()}; an update cannot come from a later version than {version}"
        )
    return found


def _each(weigh: Callable[[int], float]) -> StalenessWeight:
    # Python's powers, one for each staleness: numpy's differ in the last bit between processors.
    def weights(staleness: Integers) -> Weights:
        values, places = np.unique(staleness, return_inverse=True)
        return np.array([weigh(int(value)) for value in values], np.float64)[places]

    return weights
