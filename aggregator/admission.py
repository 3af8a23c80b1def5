"""May this update into the ledger? Pure checks against the manifest and the policy."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from aggregator.norms import WINDOW, Norms
from wire.codec import decode_delta
from wire.delta import Delta, squared_norm
from wire.errors import CodecError, NotFiniteError
from wire.manifest import ParameterSpec
from wire.messages import Refusal, Update

__all__ = ["AdmissionPolicy", "Admitted", "admit"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmissionPolicy:
    """What an update must keep to.

    Attributes:
        max_staleness: versions that the model may have moved on since the update's base, 0 or more.
        max_norm: largest Euclidean norm of the whole delta, above 0.
        norm_factor: largest norm as a multiple of what is usual, 1 or more; 0 for no such bound.
        norm_quantile: what is usual: this quantile of the norms accepted lately, above 0 and at
            most 1. At a half, less than half of the devices cannot move it far.
        norm_warmup: norms that must be known before ``norm_factor`` counts, 1 to 1,000.
        rate_tolerance: share by which a device may be faster than the task's ``interval_s``, 0 to
            below 1. Clocks differ, and networks bunch what was sent apart.
        rate_burst: updates that a device may send at once after a rest, 1 or more. What waited in
            its outbox while it had no connection comes at once.
    """

    max_staleness: int = 200
    max_norm: float = 1000.0
    norm_factor: float = 10.0
    norm_quantile: float = 0.5
    norm_warmup: int = 30
    rate_tolerance: float = 0.1
    rate_burst: int = 64

    def __post_init__(self) -> None:
        """Refuse values out of range with ValueError."""
        self._check("max_staleness", self.max_staleness >= 0, "0 or more")
        self._check("max_norm", self.max_norm > 0.0, "above 0")
        self._check(
            "norm_factor", self.norm_factor == 0.0 or self.norm_factor >= 1.0, "0, or 1 or more"
        )
        self._check("norm_quantile", 0.0 < self.norm_quantile <= 1.0, "above 0 and at most 1")
        self._check("norm_warmup", 1 <= self.norm_warmup <= WINDOW, f"1 to {WINDOW:,}")
        self._check("rate_tolerance", 0.0 <= self.rate_tolerance < 1.0, "0 to below 1")
        self._check("rate_burst", self.rate_burst >= 1, "1 or more")

    def norm_bound(self, norms: Norms) -> float:
        """The largest norm that an update may have after those that were accepted."""
        if self.norm_factor == 0.0 or norms.total < self.norm_warmup:
            return self.max_norm
        return min(self.max_norm, self.norm_factor * norms.quantile(self.norm_quantile))

    def _check(self, name: str, good: bool, expected: str) -> None:
        if not good:
            raise ValueError(f"admission.{name} is {getattr(self, name)}; expected {expected}")


@dataclass(frozen=True, slots=True)
class Admitted:
    """An update that is good.

    Attributes:
        delta: what it holds.
        norm: the Euclidean norm of that.
    """

    delta: Delta
    norm: float


def admit(
    update: Update,
    *,
    specs: Sequence[ParameterSpec],
    version: int,
    policy: AdmissionPolicy,
    norms: Norms,
) -> Admitted | Refusal:
    """Check one update of a known task.

    The cheap checks come first, so that an update which is refused for its age is not decoded.

    Args:
        update: the decoded envelope.
        specs: the manifest's federated parameters.
        version: the task's current version.
        policy: the bounds.
        norms: those of the updates that were accepted before.

    Returns:
        The decoded delta and its norm, or why it is refused.
    """
    if update.base_version > version:
        return Refusal.FROM_THE_FUTURE
    if version - update.base_version > policy.max_staleness:
        return Refusal.TOO_STALE
    try:
        delta = decode_delta(update.payload, specs)
    except NotFiniteError:
        return Refusal.NOT_FINITE
    except CodecError:
        return Refusal.WRONG_SHAPE
    norm = math.sqrt(squared_norm(delta))
    return Refusal.NORM if norm > policy.norm_bound(norms) else Admitted(delta, norm)
