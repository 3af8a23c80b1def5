"""Whether a task's versions come out of the ledger as they were recorded.

Every version is made again from what it was made of, from the bundle's initial parameters on, and
no snapshot is believed before it was compared. Only where payloads were dropped is the snapshot
that stands for them the start, and that is said.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256

from aggregator.blobs import Blobs
from aggregator.digest import origin_digest
from aggregator.fold import Fold, Folded, FoldError
from aggregator.ledger import (
    Origin,
    OriginKind,
    Past,
    StoredUpdate,
    TaskRecord,
    VersionRecord,
    ancestry_of,
)
from aggregator.merging import RuleError
from aggregator.retention import stand_for
from aggregator.snapshots import encode_snapshot, load_snapshot
from wire.manifest import Manifest

__all__ = ["Verification", "verify"]

Progress = Callable[[VersionRecord], None]


@dataclass(slots=True)
class Verification:
    """What was found.

    Attributes:
        first: the oldest version that was made again, or started from.
        last: the newest.
        versions: how many were compared.
        snapshots: how many snapshots were compared.
        differences: a sentence for each, the version that differs first before what follows of it.
        unreachable: a sentence for each thing that could not be verified, and why.
    """

    first: int = 0
    last: int = 0
    versions: int = 0
    snapshots: int = 0
    differences: list[str] = field(default_factory=list)
    unreachable: list[str] = field(default_factory=list)


def verify(
    ledger: Past,
    blobs: Blobs,
    task: TaskRecord,
    *,
    version: int | None = None,
    on_version: Progress = lambda _record: None,
) -> Verification:
    """Make the versions of a task again and compare them; writes nothing.

    Args:
        ledger: the record. A service may add to it meanwhile; what it adds is not looked at.
        blobs: where the snapshots are.
        task: which.
        version: only this one and what it is made of; all that there are if None.
        on_version: told of each version before it is made.

    Raises:
        FoldError: there is no such version.
    """
    return _Verifier(ledger, blobs, task, on_version).run(version)


class _Verifier:
    def __init__(self, ledger: Past, blobs: Blobs, task: TaskRecord, on_version: Progress) -> None:
        self._ledger, self._blobs, self._task = ledger, blobs, task.task
        self._on_version = on_version
        self._origins = ledger.origins(task.task)
        self._manifest = Manifest.from_json(task.manifest)
        self._fold = Fold(ledger, task.task, self._manifest.federated)
        self._found = Verification()
        self._good: set[int] = set()  # Versions whose snapshots are what came out.
        self._lost_from = 0  # The first version since when nothing can be made again; 0 if it can.
        self._wrong: list[int] = []  # Versions that differ, since the last that did not.

    def run(self, version: int | None) -> Verification:
        newest = self._ledger.newest_version(self._task).version
        last = newest if version is None else version
        if not 0 <= last <= newest:
            raise FoldError(f"there is no version {last}; the newest is {newest}")
        wanted = ancestry_of(self._origins, last)
        self._found.last = last
        folded = self._start(last)
        for record in self._records(last):
            passed = any(s.first <= record.version <= s.last for s in wanted)
            if version is None or passed:
                self._on_version(record)
                folded = self._next(folded, record)
        self._summarise()
        if folded is None:
            self._unreachable(f"versions {self._lost_from} to {last} were not compared for that")
        return self._found

    def _next(self, folded: Folded | None, record: VersionRecord) -> Folded | None:
        """A version made again and compared; where that is not possible, what can be gone on from.

        That is its snapshot as it is, or None without one.
        """
        made = None if folded is None else self._made(folded, record)
        if made is not None:
            self._compare(made, record)
            return made
        self._lost_from = self._lost_from or record.version
        blob, specs = record.sha256, self._manifest.federated
        state = load_snapshot(self._blobs, blob, specs, record.version) if blob else None
        if state is None:
            return None
        self._unreachable(
            f"versions {self._lost_from} to {record.version} were not compared for that; it goes "
            f"on from the snapshot of version {record.version} as it is"
        )
        self._lost_from = 0
        return Folded(state, record.digest, 0)

    def _records(self, last: int) -> Iterator[VersionRecord]:
        following = self._found.first + 1
        for record in self._ledger.between(self._task, following, last):
            if record.version != following:
                self._differs(f"version {following} is missing from the ledger")
                return
            following += 1
            yield record
        if following <= last:
            self._differs(f"version {following} is missing from the ledger")

    def _start(self, last: int) -> Folded | None:
        dropped_to = self._ledger.compaction(self._task).dropped_to
        if dropped_to:
            return self._start_from_snapshot(dropped_to, last)
        record = self._ledger.version(self._task, 0)
        initial = self._manifest.file(self._manifest.initial).sha256
        state = load_snapshot(self._blobs, initial, self._manifest.federated, 0)
        if record is None or record.sha256 != initial or record.digest not in (initial, ""):
            self._differs(
                f"version 0 is recorded as {record.digest if record else 'nothing'}, but the "
                f"manifest says {initial}"
            )
        if state is None:
            self._differs("version 0 cannot be read: the bundle's initial parameters are damaged")
            self._lost_from = 1
            return None
        self._good.add(0)
        self._found.versions += 1
        self._found.snapshots += 1
        return Folded(state, record.digest if record else initial, 0)

    def _start_from_snapshot(self, dropped_to: int, last: int) -> Folded | None:
        for version, sha in self._ledger.snapshots(self._task):
            record = self._ledger.version(self._task, version)
            if version < dropped_to or version > last or record is None:
                continue
            state = load_snapshot(self._blobs, sha, self._manifest.federated, version)
            if state is None:
                continue
            self._unreachable(
                f"versions 0 to {version - 1} cannot be made again: payloads up to version "
                f"{dropped_to} were dropped; version {version} is taken from its snapshot as it is"
            )
            self._found.first = version
            # One may go back to these: they stand for their past as they are.
            self._good |= {version, *stand_for(self._origins, dropped_to)}
            return Folded(state, record.digest, 0)
        self._unreachable(
            f"payloads up to version {dropped_to} were dropped, and no later snapshot is left"
        )
        self._lost_from = 1
        return None

    def _made(self, folded: Folded, record: VersionRecord) -> Folded | None:
        """A version made again; of the one before, or of what its origin names."""
        number = record.version
        try:
            if record.origin is not None:
                return self._made_of(Origin.from_dict(record.origin), record)
            members = self._ledger.members(self._task, number)
            self._check_members(record, members)
            return self._fold.replay(folded, record, ancestry_of(self._origins, number))
        except (FoldError, RuleError, ValueError, KeyError, TypeError) as error:
            self._differs(f"version {number} cannot be made again: {error}")
            return None

    def _made_of(self, origin: Origin, record: VersionRecord) -> Folded | None:
        number, before = record.version, self._ledger.version(self._task, record.version - 1)
        if before is None or before.digest != origin.before:
            self._differs(f"version {number} was made after another version {number - 1}")
        without = () if origin.without is None else (origin.without,)
        try:
            folded = self._fold.rebuild(
                self._blobs, origin.of, without=without, trusted=self._good, compare=False
            )
        except FoldError as error:
            if not self._found.first:
                raise
            what = "goes back to" if origin.kind is OriginKind.ROLLBACK else "was folded again from"
            self._unreachable(
                f"version {number} {what} version {origin.of}, which cannot be made again ({error})"
            )
            return None
        state = replace(folded.state, version=number)
        return Folded(state, origin_digest(folded.digest, origin), folded.replayed)

    def _check_members(self, record: VersionRecord, members: Sequence[StoredUpdate]) -> None:
        number = record.version
        if len(members) != record.updates:
            self._differs(
                f"version {number} was made of {record.updates} updates, but the ledger has "
                f"{len(members)} of it"
            )
        stale = sum(number - 1 - member.base_version for member in members)
        if stale != record.staleness_total:
            self._differs(
                f"the updates of version {number} ({_ids(members)}) were {record.staleness_total} "
                f"versions stale together, but the ledger says {stale}"
            )

    def _compare(self, folded: Folded, record: VersionRecord) -> None:
        number = record.version
        self._found.versions += 1
        if record.digest and folded.digest != record.digest:
            if not self._wrong:
                members = self._ledger.members(self._task, number)
                self._differs(
                    f"version {number} comes out as {folded.digest}, but was recorded as "
                    f"{record.digest}: its digest, its rule, or one of its updates "
                    f"({_ids(members)}) was changed"
                )
            self._wrong.append(number)
        elif self._wrong:
            self._summarise()
        if record.sha256 is not None:
            self._compare_snapshot(folded, record)

    def _compare_snapshot(self, folded: Folded, record: VersionRecord) -> None:
        number, recorded = record.version, record.sha256
        came_out = sha256(encode_snapshot(folded.state)).hexdigest()
        now = self._ledger.version(self._task, number)
        if recorded is None or now is None or now.sha256 != recorded:
            return  # The service has removed it meanwhile.
        self._found.snapshots += 1
        if came_out != recorded:
            self._differs(
                f"the snapshot of version {number} is {recorded}, but {came_out} comes out"
            )
        elif not self._blobs.intact(recorded):
            self._differs(f"the snapshot of version {number} ({recorded}) is missing or damaged")
        else:
            self._good.add(number)

    def _summarise(self) -> None:
        """Say once what a difference has brought about after it."""
        following = self._wrong[1:]
        if following:
            self._found.differences.append(
                f"versions {following[0]} to {following[-1]} follow from it and differ too"
            )
        self._wrong.clear()

    def _differs(self, sentence: str) -> None:
        self._found.differences.append(sentence)

    def _unreachable(self, sentence: str) -> None:
        self._found.unreachable.append(sentence)


def _ids(members: Sequence[StoredUpdate]) -> str:
    return f"ids {', '.join(str(m.id) for m in members[:100])}" if members else "it has none"
