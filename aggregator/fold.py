"""The model as a fold over the ledger: any version, rebuilt bit for bit.

``version v`` is a function of the bundle's initial parameters and of the merges recorded up to
``v``. A snapshot only saves the time of replaying what is before it.
"""

from collections.abc import Sequence

from aggregator.blobs import Blobs
from aggregator.ledger import Ledger, StoredUpdate, VersionRecord
from aggregator.merging import Contribution, Rule, ServerState, merge
from aggregator.snapshots import load_snapshot
from wire.codec import decode_delta
from wire.manifest import ParameterSpec

__all__ = ["FoldError", "contribution", "rebuild"]


class FoldError(Exception):
    """A version cannot be rebuilt: no snapshot before it is left."""


def contribution(update: StoredUpdate, specs: Sequence[ParameterSpec]) -> Contribution:
    """An update of the ledger, decoded for merging."""
    delta = decode_delta(update.payload, specs)
    return Contribution(update.id, update.base_version, update.examples, delta)


def rebuild(
    ledger: Ledger, blobs: Blobs, specs: Sequence[ParameterSpec], *, task: str, version: int
) -> ServerState:
    """A version's parameters: the nearest snapshot at or before it, and a replay from there.

    Args:
        ledger: the record.
        blobs: where snapshots may be.
        specs: the manifest's federated parameters.
        task: 32 hex characters.
        version: which.

    Raises:
        FoldError: no such version, or not even the bundle's initial parameters are left.
    """
    replay: list[VersionRecord] = []
    state: ServerState | None = None
    for record in ledger.history(task, last=version):
        parameters = load_snapshot(blobs, record.sha256, specs)
        if parameters is not None:
            state = ServerState(record.version, parameters)
            break
        replay.append(record)
    if state is None or state.version + len(replay) != version:
        raise FoldError(f"version {version} of task {task} cannot be rebuilt: no snapshot is left")
    for record in reversed(replay):
        members = ledger.members(task, record.version)
        batch = [contribution(member, specs) for member in members]
        state = merge(state, batch, Rule.from_dict(record.rule))
    return state
