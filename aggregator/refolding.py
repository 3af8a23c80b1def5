"""A version as it would be without some updates: a lineage, and what is different in it.

The merges of a version's past are folded again, each with the members that are left and under the
rule and at the version that it had. A merge that loses all its members changes nothing. With nobody
left out it gives the same bits, and without a device those of a run in which the device never sent
and the others' updates met in the same merges.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from aggregator.blobs import Blobs
from aggregator.compaction import fixed_to
from aggregator.fold import Fold, Folded, FoldError
from aggregator.ledger import (
    Ancestry,
    Exclusion,
    LineageRecord,
    Past,
    VersionRecord,
    ancestry_of,
    up_to,
)
from aggregator.merging import ServerState
from aggregator.snapshots import encode_snapshot, load_snapshot
from wire.delta import FloatArray
from wire.manifest import ParameterSpec

__all__ = ["Refold", "catch_up", "refold"]

EMPTIED_SHOWN = 1_000


@dataclass(frozen=True, slots=True)
class Refold:
    """A lineage before it is kept: its snapshot's bytes, and its record but for where they are."""

    snapshot: bytes
    version: int
    digest: str
    excluded: Exclusion
    changes: dict[str, Any]

    def keep(self, ledger: Past, blobs: Blobs, *, task: str, at: float) -> LineageRecord:
        """Write the snapshot, then the row that names it.

        Raises:
            LedgerUnavailableError: the database refuses.
            OSError: the snapshot cannot be written.
        """
        sha256 = blobs.put(self.snapshot)
        record = LineageRecord(
            task=task,
            excluded=self.excluded.to_dict(),
            version=self.version,
            digest=self.digest,
            sha256=sha256,
            size_bytes=len(self.snapshot),
            changes=self.changes,
            created_at=at,
        )
        try:
            return replace(record, id=ledger.add_lineage(record))
        except BaseException:
            # Interrupted or refused: the file is not left behind.
            if not ledger.is_used(sha256):
                blobs.delete(sha256)
            raise


def refold(
    ledger: Past,
    blobs: Blobs,
    task: str,
    specs: Sequence[ParameterSpec],
    without: Exclusion,
    *,
    on_version: Callable[[VersionRecord], None] = lambda _record: None,
) -> Refold:
    """Fold a task's newest version again without some updates; writes nothing.

    Args:
        ledger: the record.
        blobs: where snapshots may be.
        task: 32 hex characters.
        specs: the manifest's federated parameters.
        without: what to leave out.
        on_version: told of each version after it was folded again.

    Raises:
        KeyError: no such task.
        FoldError: no update is left out, or some cannot be any more; the message says which can.
    """
    newest, fold = ledger.newest_version(task).version, Fold(ledger, task, specs)
    origins = ledger.origins(task)
    plain = ancestry_of(origins, newest)
    gone, touched, first, _last = ledger.left_out(task, plain, without)
    if not gone:
        raise FoldError(f"no update that version {newest} is made of would be left out")
    fixed = fixed_to(ledger, task)
    if first <= fixed:
        raise FoldError(_unreachable(ledger, task, up_to(plain, fixed), without))
    emptied = ledger.emptied(task, plain, ancestry_of(origins, newest, [without]))
    folded = fold.rebuild(blobs, newest, without=[without], on_version=on_version)
    published = fold.rebuild(blobs, newest)
    changes = {
        "updates": gone,
        "versions": touched,
        "first_version": first,
        "emptied_versions": emptied[:EMPTIED_SHOWN],
        "emptied_count": len(emptied),
        "parameters": _compare(folded.state, published.state),
    }
    snapshot = encode_snapshot(folded.state)
    return Refold(snapshot, newest, folded.digest, without, changes)


def catch_up(
    ledger: Past,
    blobs: Blobs,
    specs: Sequence[ParameterSpec],
    lineage: LineageRecord,
    version: int,
) -> Folded:
    """A lineage with the merges since it was folded, without what it leaves out.

    Args:
        ledger: the record.
        blobs: where its snapshot is.
        specs: the manifest's federated parameters.
        lineage: which.
        version: up to which version.

    Raises:
        FoldError: its snapshot is gone, or the task went another way since.
    """
    without, origins = Exclusion.from_dict(lineage.excluded), ledger.origins(lineage.task)
    ancestry = ancestry_of(origins, version, [without])
    then = ancestry_of(origins, lineage.version, [without])
    if up_to(ancestry, lineage.version) != then:
        raise FoldError(
            f"lineage {lineage.id} was folded at version {lineage.version}, and the task was "
            "rolled back behind that or had another lineage promoted since; refold again"
        )
    state = load_snapshot(blobs, lineage.sha256, specs, lineage.version)
    if state is None:
        raise FoldError(f"the snapshot of lineage {lineage.id} is gone; refold again")
    fold = Fold(ledger, lineage.task, specs)
    return fold.go_on(Folded(state, lineage.digest, 0), ancestry)


def _unreachable(ledger: Past, task: str, lost: Ancestry, without: Exclusion) -> str:
    count, _, _, last = ledger.left_out(task, lost, without)
    dropped_to = ledger.compaction(task).dropped_to
    return (
        f"{count} of these updates, of merges up to version {last}, cannot be left out any more: "
        f"the payloads up to version {dropped_to} were dropped (retention.keep_payload_days); "
        "--since TIME leaves out only those that were received from then on"
    )


def _compare(one: ServerState, other: ServerState) -> dict[str, dict[str, float]]:
    """Euclidean distance and cosine of each parameter."""
    found = {}
    for name, values in one.parameters.items():
        mine, theirs = values.ravel(), other.parameters[name].ravel()
        apart = mine - theirs
        norms = math.sqrt(_dot(mine, mine) * _dot(theirs, theirs))
        cosine = _dot(mine, theirs) / norms if norms else float(not apart.any())
        found[name] = {"distance": math.sqrt(_dot(apart, apart)), "cosine": cosine}
    return found


def _dot(one: FloatArray, other: FloatArray) -> float:
    # Summed as float64, without a copy of either.
    return float(np.einsum("i,i->", one, other, dtype=np.float64))
