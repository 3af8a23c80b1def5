"""Error feedback: what the codec left out is kept on the device and added to a later delta.

Seide et al., "1-Bit Stochastic Gradient Descent", Interspeech 2014; convergence in Karimireddy et
al., "Error Feedback Fixes SignSGD and other Gradient Compression Schemes", ICML 2019.

A row's residual waits until the row is touched again. Sending every residual row each time would
double the message, and would mix rows of different user vectors into one low-rank fit. The law,
which a test checks: what was decoded plus the residual is what was learned.
"""

import numpy as np

from wire.delta import Delta, RowBlock, Tensor, add

__all__ = ["compensate", "leftover"]


def compensate(delta: Delta, residual: Delta) -> dict[str, Tensor]:
    """What to encode: the delta, plus what earlier updates left out of the rows it touches."""
    touched = {name: _only(residual[name], delta[name]) for name in delta if name in residual}
    return add(delta, touched)


def leftover(residual: Delta, compensated: Delta, decoded: Delta) -> dict[str, Tensor]:
    """The new residual.

    Args:
        residual: the one that went into ``compensate``.
        compensated: what was to be sent.
        decoded: what the aggregator will decode of it.
    """
    kept = {
        name: _without(tensor, compensated[name]) if name in compensated else tensor
        for name, tensor in residual.items()
    }
    return add(kept, add(compensated, decoded, -1.0))


def _only(residual: Tensor, touched: Tensor) -> Tensor:
    if isinstance(residual, RowBlock) and isinstance(touched, RowBlock):
        return RowBlock(touched.rows, residual.at(touched.rows))
    return residual


def _without(residual: Tensor, touched: Tensor) -> Tensor:
    if isinstance(residual, RowBlock) and isinstance(touched, RowBlock):
        waiting = ~np.isin(residual.rows, touched.rows)
        return RowBlock(residual.rows[waiting], residual.values[waiting])
    return np.zeros_like(residual)
