"""The model as a fold over the ledger: any version, rebuilt bit for bit.

``version v`` is a function of the bundle's initial parameters and of the merges that its ancestry
names: all those before it, but for versions that were gone back on and updates that were left out.
A snapshot only saves the time of replaying what is before it.
"""

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from aggregator.blobs import Blobs
from aggregator.digest import next_digest, origin_digest
from aggregator.ledger import (
    Ancestry,
    Exclusion,
    Origin,
    Past,
    StoredUpdate,
    Stretch,
    VersionRecord,
    ancestry_of,
    up_to,
)
from aggregator.merging import Contribution, Rule, ServerState, Step, advance, combine
from aggregator.snapshots import load_snapshot
from wire.codec import decode_delta
from wire.delta import Delta
from wire.errors import CodecError
from wire.manifest import ParameterSpec

__all__ = ["Fold", "FoldError", "Folded", "contribution"]

Progress = Callable[[VersionRecord], None]


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
    """An update of the ledger, decoded for merging.

    Raises:
        FoldError: its payload is not there any more, or is none.
    """
    return Contribution(
        id=update.id,
        base_version=update.base_version,
        examples=update.examples,
        delta=_delta(update, specs),
        device=update.device,
    )


class Fold:
    """Merges updates of one task as the ledger has them, now and again later.

    Args:
        ledger: the record.
        task: 32 hex characters.
        specs: the manifest's federated parameters.
    """

    def __init__(self, ledger: Past, task: str, specs: Sequence[ParameterSpec]) -> None:
        self._ledger, self._task, self._specs = ledger, task, specs

    def step(
        self, state: ServerState, batch: Sequence[Contribution], rule: Rule, ancestry: Ancestry
    ) -> Step:
        """What the merge of a batch changes, with what the rule must know of its devices.

        Args:
            state: the current version; not modified.
            batch: updates that are in the ledger.
            rule: how they are merged.
            ancestry: what the state is made of.

        Raises:
            LedgerUnavailableError: the database refuses.
            FoldError: what the rule must know of a device is not there any more.
        """
        return combine(state, [self._with_past(c, rule, ancestry) for c in batch], rule)

    def replay(self, folded: Folded, record: VersionRecord, ancestry: Ancestry) -> Folded:
        """A version, from what it is made on; in the arrays of that.

        A merge whose updates are all left out changes nothing but the counter.

        Args:
            folded: the version before, or what the version's origin names.
            record: of the version.
            ancestry: what it shall be made of.

        Raises:
            FoldError: a payload is not there any more.
        """
        before = replace(folded.state, version=record.version - 1)
        if record.origin is not None:
            digest = origin_digest(folded.digest, Origin.from_dict(record.origin))
            return Folded(replace(before, version=record.version), digest, folded.replayed)
        members = self._ledger.members(self._task, record.version)
        left = [member for member in members if _belongs(member, record.version, ancestry)]
        if members and not left:
            return replace(folded, state=replace(before, version=record.version))
        batch = [contribution(member, self._specs) for member in left]
        rule = Rule.from_dict(record.rule)
        step = self.step(before, batch, rule, up_to(ancestry, before.version))
        # Of before there were digests: the next ones begin from nothing.
        digest = next_digest(folded.digest, record.rule, step) if record.digest else ""
        return Folded(advance(before, step), digest, folded.replayed + len(batch))

    def ancestry(self, version: int, without: Sequence[Exclusion] = ()) -> Ancestry:
        """What a version is made of; see ``ancestry_of``."""
        return ancestry_of(self._ledger.origins(self._task), version, without)

    def rebuild(
        self,
        blobs: Blobs,
        version: int,
        *,
        without: Sequence[Exclusion] = (),
        trusted: Container[int] | None = None,
        compare: bool = True,
        on_version: Progress = lambda _record: None,
    ) -> Folded:
        """A version: the nearest snapshot at or before it, and a replay from there.

        Args:
            blobs: where snapshots may be.
            version: which.
            without: updates to leave out of all of its past. Then only the digests of what is as
                it was are compared.
            trusted: versions whose snapshots may be taken; all if None.
            compare: refuse what comes out with another digest than was recorded.
            on_version: told of each version after it was replayed.

        Raises:
            FoldError: no such version, not even the bundle's initial parameters are left, payloads
                are not there any more, or what comes out is not what was recorded.
        """
        origins = self._ledger.origins(self._task)
        ancestry = ancestry_of(origins, version, without)
        folded = self._start(blobs, ancestry, origins, trusted)
        return self.go_on(folded, ancestry, compare=compare, on_version=on_version)

    def go_on(
        self,
        folded: Folded,
        ancestry: Ancestry,
        *,
        compare: bool = True,
        on_version: Progress = lambda _record: None,
    ) -> Folded:
        """The newest version of an ancestry, from one that it goes through; in the arrays of that.

        Raises:
            FoldError: see ``rebuild``.
        """
        version = ancestry[-1].last
        for record, stretch in self._records(ancestry, after=folded.state.version):
            folded = self.replay(folded, record, ancestry)
            if (
                compare
                and folded.digest != record.digest
                and self._is_plain(record, stretch, ancestry)
            ):
                raise FoldError(
                    f"version {record.version} of task {self._task} comes out as {folded.digest}, "
                    f"but was recorded as {record.digest}: the database or a snapshot was changed"
                )
            on_version(record)
        if folded.state.version != version:
            raise FoldError(f"there is no version {version} of task {self._task}")
        return folded

    def _start(
        self,
        blobs: Blobs,
        ancestry: Ancestry,
        origins: Mapping[int, Origin],
        trusted: Container[int] | None,
    ) -> Folded:
        """The newest usable snapshot of an ancestry."""
        for version, sha256 in reversed(self._ledger.snapshots(self._task)):
            if not _passes_through(ancestry, version):
                continue
            if trusted is not None and version not in trusted:
                continue
            # One that holds what is to be left out is of no use.
            if not self._ledger.are_the_same(
                self._task, ancestry_of(origins, version), up_to(ancestry, version)
            ):
                continue
            record = self._ledger.version(self._task, version)
            state = load_snapshot(blobs, sha256, self._specs, version)
            if record is not None and state is not None:
                return Folded(state, record.digest, 0)
        raise FoldError(
            f"version {ancestry[-1].last} of task {self._task} cannot be rebuilt: no snapshot is "
            "left"
        )

    def _is_plain(self, record: VersionRecord, stretch: Stretch, ancestry: Ancestry) -> bool:
        """Whether a version is made of what it was recorded with."""
        if not stretch.without:
            return True
        if record.origin is None:
            return False
        return self.ancestry(record.version) == up_to(ancestry, record.version)

    def _records(
        self, ancestry: Ancestry, *, after: int
    ) -> Iterator[tuple[VersionRecord, Stretch]]:
        for stretch in ancestry:
            first = max(stretch.first, after + 1)
            for record in self._ledger.between(self._task, first, stretch.last):
                yield record, stretch

    def _with_past(self, update: Contribution, rule: Rule, ancestry: Ancestry) -> Contribution:
        if rule.needs_device_updates:
            before = self._ledger.count_before(self._task, update.device, update.id, ancestry)
            update = replace(update, device_updates=before)
        if rule.needs_previous:
            found = self._ledger.merged_before(self._task, update.device, ancestry)
            # Payloads that the rule's memory holds are never dropped, see ``compaction``.
            if found is not None and found[0].payload:
                previous, version = found
                delta = _delta(previous, self._specs)
                update = replace(update, previous=delta, previous_version=version)
        return update


def _belongs(update: StoredUpdate, version: int, ancestry: Ancestry) -> bool:
    """Whether an ancestry keeps an update that a version's merge took."""
    stretch = next(s for s in ancestry if s.first <= version <= s.last)
    return not any(e.covers(update.device, update.received_at) for e in stretch.without)


def _passes_through(ancestry: Ancestry, version: int) -> bool:
    return any(stretch.first <= version <= stretch.last for stretch in ancestry)


def _delta(update: StoredUpdate, specs: Sequence[ParameterSpec]) -> Delta:
    if not update.payload:
        raise FoldError(
            f"the payload of update {update.id} of device {update.device} was dropped; what needs "
            "it cannot be folded again"
        )
    try:
        return decode_delta(update.payload, specs)
    except CodecError as error:
        raise FoldError(
            f"the payload of update {update.id} of device {update.device} is damaged: {error}"
        ) from None
