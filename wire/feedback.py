"""Error feedback: what the codec left out is kept on the device and added to a later delta.

Seide et al., "1-Bit Stochastic Gradient Descent", Interspeech 2014; convergence in Karimireddy et
al., "Error Feedback Fixes SignSGD and other Gradient Compression Schemes", ICML 2019.

A row's residual waits until the row is touched again. Sending every residual row each time would
double the message, and would mix rows of different user vectors into one low-rank fit. While it
waits it ages, and it never adds more to a row than a bound that goes with the delta: what was left
out long ago belongs to another model, and an update that is refused again and again, with its
content taken back each time, must not grow for ever.

The law, which a test checks: what was decoded plus the residual is what was learned, except for
what ageing and the bound take away.
"""

import numpy as np
from numpy.typing import NDArray

from wire.delta import Delta, FloatArray, RowBlock, Tensor, add
from wire.policy import CodecPolicy

__all__ = ["compensate", "leftover", "share_left"]


def share_left(updates: NDArray[np.int64], policy: CodecPolicy) -> NDArray[np.float32]:
    """What is left of residual rows.

    Args:
        updates: int64 [n], how many updates ago each row was left out; the one before the present
            update is 1 ago.
        policy: how they age.

    Returns:
        float32 [n], 0 to 1.
    """
    shares = np.power(policy.residual_keep, updates, dtype=np.float64)
    return np.where(updates > policy.residual_updates, 0.0, shares).astype(np.float32)


def compensate(delta: Delta, residual: Delta, policy: CodecPolicy) -> dict[str, Tensor]:
    """What to encode: the delta, plus what earlier updates left out of the rows it touches.

    Args:
        delta: what was learned.
        residual: what was left out, aged.
        policy: with the bound of a residual.
    """
    touched = {
        name: _bounded(_only(residual[name], delta[name]), delta[name], policy.residual_bound)
        for name in delta
        if name in residual
    }
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
        waiting = ~touched.has(residual.rows)
        return RowBlock(residual.rows[waiting], residual.values[waiting])
    return np.zeros_like(residual)


def _bounded(residual: Tensor, delta: Tensor, bound: float) -> Tensor:
    """No row longer than the bound times the usual length of the delta's rows."""
    if isinstance(residual, RowBlock) and isinstance(delta, RowBlock):
        return RowBlock(residual.rows, _shortened(residual.values, delta.values, bound))
    if isinstance(residual, RowBlock) or isinstance(delta, RowBlock):
        raise ValueError("cannot add rows to a dense tensor")
    whole = _shortened(residual.reshape(1, -1), delta.reshape(1, -1), bound)
    return whole.reshape(residual.shape)


def _shortened(rows: FloatArray, delta: FloatArray, bound: float) -> FloatArray:
    if not delta.any():
        return rows
    longest = bound * np.sqrt(_squared_lengths(delta).mean())
    shares = longest / np.maximum(np.sqrt(_squared_lengths(rows)), longest)
    return np.asarray(rows * shares[:, None], np.float32)


def _squared_lengths(rows: FloatArray) -> NDArray[np.float64]:
    return np.asarray(np.square(rows, dtype=np.float64).sum(axis=1))
