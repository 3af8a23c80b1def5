"""What the server does with a buffer's mean: it is a pseudo-gradient, and stepped along.

Reddi et al., "Adaptive Federated Optimization", ICLR 2021 (arXiv:2003.00295), algorithm 2. With the
mean D of a buffer and the rate eta, a parameter x moves by

    sgd        eta * D                                 FedAvg, and FedSGD's server step
    momentum   eta * m,  m = momentum * m + D          FedAvgM: Hsu et al., "Measuring the Effects
               of Non-Identical Data Distribution", 2019 (arXiv:1909.06335); without 1 - beta
    adagrad, yogi, adam   eta * m / (sqrt(v) + tau),  m = beta_1 * m + (1 - beta_1) * D
        adagrad    v = v + D^2
        yogi       v = v - (1 - beta_2) * D^2 * sign(v - D^2)
        adam       v = beta_2 * v + (1 - beta_2) * D^2
    amsgrad    eta * m / (sqrt(w) + tau),  m and v of adam, w = max(w, v)      FADAS, algorithm 1

tau is our ``adaptivity``. There is no bias correction, as in the paper: m starts at 0 and v at
tau^2; the v and w of amsgrad start at 0. Without a count of steps every row of an item table can
have a history of its own: moments are held, decay and step where a buffer touches the row and
nowhere else, so a row that nobody touched does not drift on old momentum.

Everything is computed in float64 and kept as float32.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from aggregator.merging.average import Average
from aggregator.merging.choices import Optimizer
from aggregator.merging.rule import Rule
from aggregator.merging.state import ServerState, recall
from aggregator.merging.step import Change

__all__ = ["SLOTS", "move"]

Values = NDArray[np.float64]
Direction = Callable[[Rule, Values, Sequence[Values]], tuple[Values, Sequence[Values]]]
"""From a rule, the mean and the slots to the direction of the step and the new slots."""


def move(
    state: ServerState, name: str, average: Average, *, rule: Rule, rate: float
) -> tuple[Change, dict[str, Change]]:
    """One parameter's step, and what the optimizer remembers of it.

    Args:
        state: the current version.
        name: of the parameter.
        average: the pseudo-gradient.
        rule: names the optimizer and its constants.
        rate: factor on its direction.
    """
    old, rows = state.parameters[name], average.rows
    names = [f"{slot}/{name}" for slot in SLOTS[rule.optimizer]]
    slots = [recall(state, n, old.shape, np.float32, rows).astype(np.float64) for n in names]
    direction, slots_after = _DIRECTIONS[rule.optimizer](rule, average.values, slots)
    start = old if rows is None else old[rows]
    step = Change(rows, (start + rate * direction).astype(np.float32), old.shape)
    return step, {
        slot: Change(rows, values.astype(np.float32), old.shape)
        for slot, values in zip(names, slots_after, strict=True)
    }


def _sgd(_rule: Rule, mean: Values, _slots: Sequence[Values]) -> tuple[Values, Sequence[Values]]:
    return mean, ()


def _momentum(rule: Rule, mean: Values, slots: Sequence[Values]) -> tuple[Values, Sequence[Values]]:
    velocity = rule.momentum * slots[0] + mean
    return velocity, (velocity,)


def _adagrad(rule: Rule, mean: Values, slots: Sequence[Values]) -> tuple[Values, Sequence[Values]]:
    first, second = _moments(rule, mean, slots)
    return _scaled(rule, first, second + np.square(mean))


def _yogi(rule: Rule, mean: Values, slots: Sequence[Values]) -> tuple[Values, Sequence[Values]]:
    first, second = _moments(rule, mean, slots)
    square = np.square(mean)
    return _scaled(rule, first, second - (1.0 - rule.beta_2) * square * np.sign(second - square))


def _adam(rule: Rule, mean: Values, slots: Sequence[Values]) -> tuple[Values, Sequence[Values]]:
    first, second = _moments(rule, mean, slots)
    return _scaled(rule, first, rule.beta_2 * second + (1.0 - rule.beta_2) * np.square(mean))


def _amsgrad(rule: Rule, mean: Values, slots: Sequence[Values]) -> tuple[Values, Sequence[Values]]:
    first = rule.beta_1 * slots[0] + (1.0 - rule.beta_1) * mean
    second = rule.beta_2 * slots[1] + (1.0 - rule.beta_2) * np.square(mean)
    largest = np.maximum(slots[2], second)
    return first / (np.sqrt(largest) + rule.adaptivity), (first, second, largest)


def _moments(rule: Rule, mean: Values, slots: Sequence[Values]) -> tuple[Values, Values]:
    """The new first moment and the old second one, whose memory is 0 only before the first step."""
    first = rule.beta_1 * slots[0] + (1.0 - rule.beta_1) * mean
    return first, np.where(slots[1] == 0.0, rule.adaptivity**2, slots[1])


def _scaled(rule: Rule, first: Values, second: Values) -> tuple[Values, Sequence[Values]]:
    return first / (np.sqrt(second) + rule.adaptivity), (first, second)


_DIRECTIONS: Mapping[Optimizer, Direction] = {
    Optimizer.SGD: _sgd,
    Optimizer.MOMENTUM: _momentum,
    Optimizer.ADAGRAD: _adagrad,
    Optimizer.YOGI: _yogi,
    Optimizer.ADAM: _adam,
    Optimizer.AMSGRAD: _amsgrad,
}
SLOTS: Mapping[Optimizer, tuple[str, ...]] = {
    Optimizer.SGD: (),
    Optimizer.MOMENTUM: ("velocity",),
    Optimizer.ADAGRAD: ("first_moment", "second_moment"),
    Optimizer.YOGI: ("first_moment", "second_moment"),
    Optimizer.ADAM: ("first_moment", "second_moment"),
    Optimizer.AMSGRAD: ("first_moment", "second_moment", "largest_second_moment"),
}
