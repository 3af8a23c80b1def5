"""What several seeds say together: a mean, and the interval in which the true one probably lies."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

__all__ = ["CONFIDENCE", "Estimate", "estimate", "estimate_ratio", "t_quantile"]

CONFIDENCE = 0.95
BISECTIONS = 200


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over seeds with its 95 % confidence interval.

    Attributes:
        mean: of the values; of ratios the geometric one.
        low: lower end of the interval; None with a single value.
        high: upper end.
        values: one a seed.
    """

    mean: float
    low: float | None
    high: float | None
    values: tuple[float, ...]

    def to_dict(self) -> dict[str, Any]:
        """As a JSON-ready map."""
        return asdict(self)


def estimate(values: Sequence[float]) -> Estimate:
    """The mean of independent values and its interval: mean +- t * s / sqrt(n).

    Here s is the sample's standard deviation and t the quantile of Student's distribution with
    n - 1 degrees of freedom ("Student", The probable error of a mean, Biometrika 6, 1908).

    Args:
        values: at least one.
    """
    n, mean = len(values), math.fsum(values) / len(values)
    if n == 1:
        return Estimate(mean, None, None, tuple(values))
    variance = math.fsum((value - mean) ** 2 for value in values) / (n - 1)
    half = t_quantile(n - 1) * math.sqrt(variance / n)
    return Estimate(mean, mean - half, mean + half, tuple(values))


def estimate_ratio(numerators: Sequence[float], denominators: Sequence[float]) -> Estimate:
    """The geometric mean of ratios of paired values, and its interval, by way of logarithms.

    Args:
        numerators: at least one, above 0, one a seed.
        denominators: above 0, of the same seeds.
    """
    ratios = [above / below for above, below in zip(numerators, denominators, strict=True)]
    logs = estimate([math.log(ratio) for ratio in ratios])
    low, high = (None if end is None else math.exp(end) for end in (logs.low, logs.high))
    return Estimate(math.exp(logs.mean), low, high, tuple(ratios))


@cache
def t_quantile(degrees: int, confidence: float = CONFIDENCE) -> float:
    """The t beyond which, on both sides together, 1 - ``confidence`` of Student's t lies.

    Args:
        degrees: of freedom, at least 1.
        confidence: above 0 and below 1.
    """
    low, high = 0.0, 1.0
    while _within(high, degrees) < confidence:
        high *= 2.0
    for _ in range(BISECTIONS):
        middle = (low + high) / 2.0
        low, high = (middle, high) if _within(middle, degrees) < confidence else (low, middle)
    return high


def _within(t: float, degrees: int) -> float:
    """P(|T| <= t): Abramowitz and Stegun, equations 26.7.3 and 26.7.4, finite sums."""
    theta = math.atan(t / math.sqrt(degrees))
    odd, cosine = degrees % 2, math.cos(theta)
    term, total = (cosine, 0.0) if odd else (1.0, 0.0)
    for power in range(1 + odd, degrees, 2):
        total += term
        term *= power / (power + 1.0) * cosine**2
    total *= math.sin(theta)
    return 2.0 / math.pi * (theta + total) if odd else total
