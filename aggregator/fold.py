"""The model as a fold over the ledger: any version, rebuilt bit for bit.

``version v`` is a function of the bundle's initial parameters and of the merges recorded up to
``v``. A snapshot only saves the time of replaying what is before it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from aggregator.blobs import Blobs
from aggregator.digest import next_digest
from aggregator.ledger import Ledger, StoredUpdate, VersionRecord
from aggregator.merging import Contribution, Rule, ServerState, Step, advance, combine
from aggregator.snapshots import load_snapshot
from wire.codec import decode_delta
from wire.manifest import ParameterSpec

__all__ = ["Fold", "FoldError", "Folded", "contribution"]


class FoldError(Exception):
    """A version cannot be rebuilt, or does not come out as it was recorded."""


@dataclass(frozen=True, slots=True)
class Folded:
    """A version that was rebuilt.

    Attributes:
        state: its parameters, in arrays of its own.
        digest: as it came out.
        replayed: how many updates were merged again for it.
    """

    state: ServerState
    digest: str
    replayed: int


def contribution(update: StoredUpdate, specs: Sequence[ParameterSpec]) -> Contribution:
    """An update of the ledger, decoded for merging."""
    return Contribution(
        id=update.id,
        base_version=update.base_version,
        examples=update.examples,
        delta=decode_delta(update.payload, specs),
        device=update.device,
    )


class Fold:
    """Merges updates of one task as the ledger has them, now and again later.

    Args:
        ledger: the record.
        task: 32 hex characters.
        specs: the manifest's federated parameters.
    """

    def __init__(self, ledger: Ledger, task: str, specs: Sequence[ParameterSpec]) -> None:
        self._ledger, self._task, self._specs = ledger, task, specs

    def step(self, state: ServerState, batch: Sequence[Contribution], rule: Rule) -> Step:
        """What the merge of a batch changes, with what the rule must know of its devices.

        Args:
            state: the current version; not modified.
            batch: updates that are in the ledger.
            rule: how they are merged.

        Raises:
            LedgerUnavailableError: the database refuses.
        """
        return combine(state, [self._with_past(c, state, rule) for c in batch], rule)

    def replay(self, folded: Folded, record: VersionRecord) -> Folded:
        """The next version, by the merge that the ledger recorded; in the arrays of the old one."""
        members = self._ledger.members(self._task, record.version)
        batch = [contribution(member, self._specs) for member in members]
        step = self.step(folded.state, batch, Rule.from_dict(record.rule))
        digest = next_digest(folded.digest, record.rule, step)
        return Folded(advance(folded.state, step), digest, folded.replayed + len(batch))

    def rebuild(self, blobs: Blobs, version: int) -> Folded:
        """A version: the nearest snapshot at or before it, and a replay from there.

        Args:
            blobs: where snapshots may be.
            version: which.

        Raises:
            FoldError: no such version, not even the bundle's initial parameters are left, or what
                comes out is not what was recorded.
        """
        replay: list[VersionRecord] = []
        folded: Folded | None = None
        for record in self._ledger.history(self._task, last=version):
            if record.sha256 is not None:
                state = load_snapshot(blobs, record.sha256, self._specs, record.version)
                if state is not None:
                    folded = Folded(state, record.digest, 0)
                    break
            replay.append(record)
        if folded is None or folded.state.version + len(replay) != version:
            raise FoldError(
                f"version {version} of task {self._task} cannot be rebuilt: no snapshot is left"
            )
        for record in reversed(replay):
            folded = self.replay(folded, record)
            if not record.digest:
                # Of before there were digests: the next ones begin from nothing.
                folded = replace(folded, digest="")
            elif folded.digest != record.digest:
                raise FoldError(
                    f"version {record.version} of task {self._task} comes out as {folded.digest}, "
                    f"but was recorded as {record.digest}: the database or a snapshot was changed"
                )
        return folded

    def _with_past(self, update: Contribution, state: ServerState, rule: Rule) -> Contribution:
        if rule.needs_device_updates:
            before = self._ledger.count_before(self._task, update.device, update.id)
            update = replace(update, device_updates=before)
        if rule.needs_previous:
            found = self._ledger.merged_before(self._task, update.device, state.version)
            if found is not None:
                previous, version = found
                delta = decode_delta(previous.payload, self._specs)
                update = replace(update, previous=delta, previous_version=version)
        return update
