"""Error feedback: what the codec left out is kept on the device and added to the next delta.

Seide et al., "1-Bit Stochastic Gradient Descent", Interspeech 2014; convergence in Karimireddy et
al., "Error Feedback Fixes SignSGD and other Gradient Compression Schemes", ICML 2019. The law,
which a test checks: the sum of what was decoded plus the residual is the sum of what was learned.
"""

from wire.delta import Delta, Tensor, add

__all__ = ["compensate", "leftover"]


def compensate(delta: Delta, residual: Delta) -> dict[str, Tensor]:
    """What to encode: the new delta plus what earlier updates left out."""
    return add(delta, residual)


def leftover(compensated: Delta, decoded: Delta) -> dict[str, Tensor]:
    """The new residual: what was to be sent minus what the aggregator will decode."""
    return add(compensated, decoded, -1.0)
