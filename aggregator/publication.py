"""What devices get of a version: its parameters on a coarse grid, so that a change costs little.

The server keeps its own parameters exactly. Of a version that it announces it publishes each
parameter rounded to a multiple of a power of two, about a sixth of the root mean square of a
table. What a device starts from is off by less than a version's own noise, always the same for
every device, and however many versions are published the rounding never adds up. What changed
between two publications is then mostly zero, and the rest small whole numbers: see ``wire.patch``.
"""

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from aggregator.blobs import Blobs
from aggregator.ledger import PublicationRecord
from aggregator.merging import ServerState
from wire.delta import FloatArray
from wire.manifest import ParameterSpec, Role
from wire.parameters import parameters_header
from wire.patch import on_grid

__all__ = ["choose_grid", "grid_exponent", "publish"]

TABLE_BITS, DENSE_BITS = 2.5, 6.5
"""The step is near the root mean square divided by 2 to this power: finer for dense parameters,
of which there are few, and which every item's score depends on."""
SLACK_BITS = 1.0
"""By how much the step may be off before it is chosen anew: then every value moves at once."""
FINEST, COARSEST = -100, 100
PORTION_VALUES = 1 << 20


def grid_exponent(values: FloatArray, role: Role, before: int | None) -> int:
    """The power of two that a parameter is rounded to.

    Args:
        values: float32, the parameter.
        role: dense or rows.
        before: what it was for the publication before; None for the first.

    Returns:
        An exponent from -100 to 100; the one before while it still is about right.
    """
    total = sum(float(np.square(portion, dtype=np.float64).sum()) for portion in _portions(values))
    square = total / values.size
    # What is not finite is published as it is: the fault is the model's.
    if not 0.0 < square < math.inf:
        return 0 if before is None else before
    bits = TABLE_BITS if role is Role.ROWS else DENSE_BITS
    wanted = 0.5 * math.log2(square) - bits
    if before is not None and abs(before - wanted) <= SLACK_BITS:
        return before
    return min(max(round(wanted), FINEST), COARSEST)


def choose_grid(
    parameters: Mapping[str, FloatArray],
    specs: Sequence[ParameterSpec],
    before: Mapping[str, int],
) -> dict[str, int]:
    """For each parameter the power of two that it is rounded to; see ``grid_exponent``.

    Args:
        parameters: float32 arrays by name.
        specs: the federated parameters.
        before: what was chosen for the publication before; empty for the first.
    """
    return {
        spec.name: grid_exponent(parameters[spec.name], spec.role, before.get(spec.name))
        for spec in specs
    }


def publish(
    state: ServerState,
    specs: Sequence[ParameterSpec],
    blobs: Blobs,
    *,
    task: str,
    exponents: Mapping[str, int],
    at: float,
) -> PublicationRecord:
    """Write the file that devices of this version start from.

    Args:
        state: the version.
        specs: the federated parameters.
        blobs: where the file goes.
        task: 32 hex characters.
        exponents: those of the publication before; empty for the first.
        at: seconds since 1970.

    Raises:
        OSError: it cannot be written.
    """
    chosen = choose_grid(state.parameters, specs, exponents)
    with blobs.upload() as upload:
        upload.write(parameters_header(specs))
        for name, exponent in sorted(chosen.items()):
            for exact in _portions(state.parameters[name]):
                upload.write(on_grid(exact, exponent).astype("<f4", copy=False).tobytes())
    return PublicationRecord(
        task=task,
        version=state.version,
        sha256=upload.sha256(),
        size_bytes=upload.size_bytes,
        exponents=chosen,
        created_at=at,
    )


def _portions(array: FloatArray) -> Iterator[FloatArray]:
    """Some leading rows, then the next: a table may take most of the memory."""
    rows = max(1, PORTION_VALUES * len(array) // array.size)
    for start in range(0, len(array), rows):
        yield array[start : start + rows]
