"""May this update into the ledger? Pure checks against the manifest and the policy."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from wire.codec import decode_delta
from wire.delta import Delta, squared_norm
from wire.errors import CodecError, NotFiniteError
from wire.manifest import ParameterSpec
from wire.messages import Refusal, Update

__all__ = ["AdmissionPolicy", "admit"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmissionPolicy:
    """What an update must keep to.

    Attributes:
        max_staleness: versions that the model may have moved on since the update's base, 0 or more.
        max_norm: largest Euclidean norm of the whole delta, above 0.
    """

    max_staleness: int = 200
    max_norm: float = 1000.0

    def __post_init__(self) -> None:
        """Refuse values out of range with ValueError."""
        if self.max_staleness < 0:
            raise ValueError(f"admission.max_staleness is {self.max_staleness}; expected 0 or more")
        if not self.max_norm > 0.0:
            raise ValueError(f"admission.max_norm is {self.max_norm}; expected above 0")


def admit(
    update: Update, *, specs: Sequence[ParameterSpec], version: int, policy: AdmissionPolicy
) -> Delta | Refusal:
    """Check one update of a known task.

    The cheap checks come first, so that an update which is refused for its age is not decoded.

    Args:
        update: the decoded envelope.
        specs: the manifest's federated parameters.
        version: the task's current version.
        policy: the bounds.

    Returns:
        The decoded delta, or why it is refused.
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
    if math.sqrt(squared_norm(delta)) > policy.max_norm:
        return Refusal.NORM
    return delta
