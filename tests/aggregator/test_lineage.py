"""Going back, folding again without somebody, and going on from that: nothing is destroyed."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from aggregator.fold import Fold, FoldError, contribution
from aggregator.ledger import Exclusion, LineageRecord, Origin
from aggregator.merging import Rule as MergeRule
from aggregator.merging import ServerState, apply
from aggregator.merging.pipeline import combine
from aggregator.refolding import refold
from aggregator.retention import Retention
from aggregator.snapshots import encode_snapshot, read_snapshot
from tests.aggregator.test_crashes import Crash, Fuse
from tests.aggregator.training import OFTEN, RULES, VERSIONS, go_on, train
from tests.aggregator.workshop import Workshop, make_update, open_workshop
from wire.bundle import Bundle
from wire.codec import decode_delta

A = Exclusion(devices=("a",))
WAYS = ("plain", "participation", "cached", "adaptive", "robust")
"""One rule for each thing that a rule may remember, or ask of the past; `test_verification` takes
them all."""


def fold(workshop: Workshop, bundle: Bundle) -> Fold:
    return Fold(workshop.ledger, bundle.task, bundle.manifest.federated)


def live(workshop: Workshop, bundle: Bundle) -> bytes:
    return encode_snapshot(workshop.engine.tasks[bundle.task].state)


def make_lineage(workshop: Workshop, bundle: Bundle, without: Exclusion = A) -> LineageRecord:
    made = refold(workshop.ledger, workshop.blobs, bundle.task, bundle.manifest.federated, without)
    return made.keep(workshop.ledger, workshop.blobs, task=bundle.task, at=1.0)


def forget_snapshots(workshop: Workshop, bundle: Bundle) -> None:
    for version, sha256 in workshop.ledger.snapshots(bundle.task):
        if version:
            workshop.ledger.forget_snapshot(bundle.task, version)
            workshop.blobs.delete(sha256)


def comes_out(workshop: Workshop, bundle: Bundle) -> None:
    """The newest version is rebuilt from nothing but the bundle and the updates."""
    task = workshop.engine.tasks[bundle.task]
    forget_snapshots(workshop, bundle)
    folded = fold(workshop, bundle).rebuild(workshop.blobs, task.version)
    assert folded.digest == task.newest.digest
    assert encode_snapshot(folded.state) == encode_snapshot(task.state)


def never_sent(workshop: Workshop, bundle: Bundle, device: str, version: int) -> ServerState:
    """What the recorded merges make if a device had never sent: written without the fold.

    For rules that look back this keeps its own record of what each device said.
    """
    specs, ledger = bundle.manifest.federated, workshop.ledger
    initial = bundle.manifest.file(bundle.manifest.initial)
    state = read_snapshot(workshop.blobs.path(initial.sha256), specs, 0)
    said: dict[str, tuple[bytes, int]] = {}
    counts: dict[str, int] = {}
    for number in range(1, version + 1):
        record = ledger.version(bundle.task, number)
        assert record is not None
        kept = [m for m in ledger.members(bundle.task, number) if m.device != device]
        batch = []
        for member in kept:
            update = replace(
                contribution(member, specs), device_updates=counts.get(member.device, 0)
            )
            counts[member.device] = counts.get(member.device, 0) + 1
            if member.device in said:
                payload, at = said[member.device]
                update = replace(update, previous=decode_delta(payload, specs), previous_version=at)
            batch.append(update)
        said |= {member.device: (member.payload, number) for member in kept}
        if batch:
            state = apply(state, combine(state, batch, MergeRule.from_dict(record.rule)))
        else:
            state = replace(state, version=number)
    return state


@pytest.mark.parametrize("name", RULES)
def test_with_nobody_left_out_the_same_bits_come_out(
    tmp_path: Path, bundle: Bundle, name: str
) -> None:
    with open_workshop(tmp_path / "data", rule=RULES[name], retention=OFTEN) as workshop:
        digests = train(workshop, bundle)
        stranger = Exclusion(devices=("nobody",))
        folded = fold(workshop, bundle).rebuild(workshop.blobs, VERSIONS, without=[stranger])
        assert folded.digest == digests[-1]
        assert encode_snapshot(folded.state) == live(workshop, bundle)
        with pytest.raises(FoldError, match="no update"):
            make_lineage(workshop, bundle, stranger)


@pytest.mark.parametrize(
    ("device", "name"), [*(("a", name) for name in RULES), *(("c", name) for name in WAYS)]
)
def test_without_a_device_it_is_as_if_the_device_had_never_sent(
    tmp_path: Path, bundle: Bundle, device: str, name: str
) -> None:
    with open_workshop(tmp_path / "data", rule=RULES[name], retention=OFTEN) as workshop:
        train(workshop, bundle)
        lineage = make_lineage(workshop, bundle, Exclusion(devices=(device,)))
        wanted = never_sent(workshop, bundle, device, VERSIONS)
        path = workshop.blobs.path(lineage.sha256)
        assert path.read_bytes() == encode_snapshot(wanted) != live(workshop, bundle)


def test_a_merge_that_loses_all_it_took_changes_nothing(tmp_path: Path, bundle: Bundle) -> None:
    with open_workshop(tmp_path / "data") as workshop:
        workshop.engine.start()
        workshop.engine.register(bundle)
        go_on(workshop, bundle, "aaabbbaaa", first=1)
        lineage = make_lineage(workshop, bundle)
        changes = lineage.changes
        assert (changes["updates"], changes["versions"], changes["first_version"]) == (6, 2, 1)
        assert changes["emptied_versions"] == [1, 3]
        assert changes["emptied_count"] == 2
        states = [
            read_snapshot(workshop.blobs.path(lineage.sha256), bundle.manifest.federated, 3),
            workshop.engine.tasks[bundle.task].state,
        ]
        for parameter, found in changes["parameters"].items():
            one, other = (state.parameters[parameter] for state in states)
            assert found["distance"] == pytest.approx(float(np.linalg.norm(one - other)))
            assert -1.0 <= found["cosine"] < 1.0


def test_some_of_a_devices_updates_can_be_left_out(workshop: Workshop, bundle: Bundle) -> None:
    workshop.clock.now = 100.0
    go_on(workshop, bundle, "aab", first=1)
    workshop.clock.now = 200.0
    go_on(workshop, bundle, "aab", first=4)
    early = make_lineage(workshop, bundle, Exclusion(devices=("a",), until=200.0))
    assert (early.changes["updates"], early.changes["first_version"]) == (2, 1)
    late = make_lineage(workshop, bundle, Exclusion(since=200.0))
    assert (late.changes["updates"], late.changes["emptied_versions"]) == (3, [2])
    first = fold(workshop, bundle).rebuild(workshop.blobs, 1)
    assert workshop.blobs.path(late.sha256).read_bytes() == encode_snapshot(first.state)


@pytest.mark.parametrize("name", WAYS)
def test_after_a_rollback_training_goes_on_and_everything_comes_out(
    tmp_path: Path, bundle: Bundle, name: str
) -> None:
    with open_workshop(tmp_path / "data", rule=RULES[name], retention=OFTEN) as workshop:
        digests = train(workshop, bundle)
        older = encode_snapshot(fold(workshop, bundle).rebuild(workshop.blobs, 3).state)
        assert workshop.engine.rollback(bundle.task, 3) == VERSIONS + 1
        assert live(workshop, bundle) == older
        announced = workshop.outbox.announcements(bundle.task)[-1]
        assert announced.version == VERSIONS + 1
        assert workshop.blobs.has(announced.sha256)
        # An update of a discarded version is merged too, as stale as the counter says.
        late = make_update(bundle, 900, base=VERSIONS)
        workshop.send("a", late)
        go_on(workshop, bundle, "bcabcab", first=901)
        newest = workshop.engine.tasks[bundle.task].newest
        assert newest.version == VERSIONS + 3
    with open_workshop(tmp_path / "data", rule=RULES[name], retention=OFTEN) as workshop:
        workshop.engine.start()
        assert workshop.engine.tasks[bundle.task].newest.digest == newest.digest
        # What was gone back on is still there.
        folded = fold(workshop, bundle).rebuild(workshop.blobs, VERSIONS)
        assert folded.digest == digests[-1]
        assert workshop.engine.rollback(bundle.task, VERSIONS) == VERSIONS + 4
        assert live(workshop, bundle) == encode_snapshot(folded.state)
        go_on(workshop, bundle, "bca", first=950)
        comes_out(workshop, bundle)


def test_a_rollback_that_is_wished_twice_is_made_once(workshop: Workshop, bundle: Bundle) -> None:
    go_on(workshop, bundle, "abcabc", first=1)
    assert workshop.engine.rollback(bundle.task, 0) == 3
    assert workshop.engine.rollback(bundle.task, 0) == 3
    for version in (3, 4, -1):
        with pytest.raises(FoldError, match="not an older one"):
            workshop.engine.rollback(bundle.task, version)
    (event,) = [e for e in workshop.reports.events() if e.kind == "rolled-back"]
    assert event.detail == "version 3 has the parameters of version 0"


@pytest.mark.parametrize("name", WAYS)
def test_a_promotion_takes_the_merges_since_along(
    tmp_path: Path, bundle: Bundle, name: str
) -> None:
    with open_workshop(tmp_path / "data", rule=RULES[name], retention=OFTEN) as workshop:
        train(workshop, bundle)
        lineage = make_lineage(workshop, bundle)
        go_on(workshop, bundle, "abccbaa", first=900)
        before = workshop.engine.tasks[bundle.task].version
        wanted = never_sent(workshop, bundle, "a", before)
        assert workshop.engine.promote(bundle.task, lineage.id) == before + 1
        assert live(workshop, bundle) == encode_snapshot(wanted)
        task = workshop.engine.tasks[bundle.task]
        # What waited of the device is not merged later.
        assert task.pending == 0
        assert workshop.engine.promote(bundle.task, lineage.id) == before + 1
        go_on(workshop, bundle, "abcabc", first=950)
        newest = task.newest
        assert workshop.outbox.announcements(bundle.task)[-1].version == newest.version
    with open_workshop(tmp_path / "data", rule=RULES[name], retention=OFTEN) as workshop:
        workshop.engine.start()
        task = workshop.engine.tasks[bundle.task]
        assert (task.newest.digest, task.pending) == (newest.digest, 0)
        comes_out(workshop, bundle)
        # Again without another, and back to before all of it.
        other = make_lineage(workshop, bundle, Exclusion(devices=("b",)))
        workshop.engine.promote(bundle.task, other.id)
        go_on(workshop, bundle, "abc", first=970)
        comes_out(workshop, bundle)
        assert task.origin is None
        workshop.engine.rollback(bundle.task, VERSIONS)
        go_on(workshop, bundle, "abc", first=980)
        comes_out(workshop, bundle)


def test_a_lineage_of_another_way_is_not_promoted(workshop: Workshop, bundle: Bundle) -> None:
    go_on(workshop, bundle, "abcabc", first=1)
    lineage, other = make_lineage(workshop, bundle), make_lineage(workshop, bundle)
    behind = make_lineage(workshop, bundle, Exclusion(devices=("b",)))
    workshop.engine.promote(bundle.task, other.id)
    with pytest.raises(FoldError, match="refold again"):
        workshop.engine.promote(bundle.task, behind.id)
    workshop.engine.rollback(bundle.task, 1)
    with pytest.raises(FoldError, match="refold again"):
        workshop.engine.promote(bundle.task, lineage.id)
    with pytest.raises(KeyError):
        workshop.engine.promote(bundle.task, 99)
    again = make_lineage(workshop, bundle)
    workshop.blobs.delete(again.sha256)
    with pytest.raises(FoldError, match="is gone; refold again"):
        workshop.engine.promote(bundle.task, again.id)


def test_a_promoted_version_says_where_it_comes_from(workshop: Workshop, bundle: Bundle) -> None:
    go_on(workshop, bundle, "abc", first=1)
    lineage = make_lineage(workshop, bundle)
    before = workshop.engine.tasks[bundle.task].newest.digest
    workshop.engine.promote(bundle.task, lineage.id)
    record = workshop.ledger.newest_version(bundle.task)
    assert record.origin is not None
    origin = Origin.from_dict(record.origin)
    assert (origin.of, origin.before, origin.without, origin.lineage) == (1, before, A, lineage.id)
    assert record.updates == 0


def test_a_forgotten_lineage_leaves_what_it_was_promoted_to(
    workshop: Workshop, bundle: Bundle
) -> None:
    go_on(workshop, bundle, "abc", first=1)
    first, second = make_lineage(workshop, bundle), make_lineage(workshop, bundle)
    assert first.sha256 == second.sha256
    workshop.engine.forget_lineage(bundle.task, first.id)
    workshop.engine.promote(bundle.task, second.id)
    workshop.engine.forget_lineage(bundle.task, second.id)
    assert workshop.blobs.has(second.sha256)
    forget_snapshots(workshop, bundle)
    comes_out(workshop, bundle)


WRITES = ("add_version", "forget_snapshot", "add_publication", "forget_publications")


@pytest.mark.parametrize("wish", ["rollback", "promote", "refold"])
def test_death_at_every_step_leaves_all_or_nothing(
    tmp_path: Path, bundle: Bundle, wish: str
) -> None:
    retention = Retention(snapshot_every=3, keep_snapshots=1, keep_every=0, keep_publications=1)
    with open_workshop(tmp_path / "start", retention=retention) as workshop:
        workshop.engine.start()
        workshop.engine.register(bundle)
        go_on(workshop, bundle, "abcabca", first=1)
        lineage = make_lineage(workshop, bundle)
    steps, ends = 0, set()
    while True:
        fuse, folder = Fuse(steps), tmp_path / f"at-{steps}"
        shutil.copytree(tmp_path / "start", folder)
        with open_workshop(folder, retention=retention) as workshop:
            workshop.engine.start()
            for name in (*WRITES, "add_lineage"):
                setattr(workshop.ledger, name, fuse.around(getattr(workshop.ledger, name)))
            for name in ("upload", "delete"):
                setattr(workshop.blobs, name, fuse.around(getattr(workshop.blobs, name)))
            try:
                if wish == "rollback":
                    workshop.engine.rollback(bundle.task, 1)
                elif wish == "promote":
                    workshop.engine.promote(bundle.task, lineage.id)
                else:
                    make_lineage(workshop, bundle, Exclusion(devices=("b",)))
            except Crash:
                pass
        with open_workshop(folder, retention=retention) as workshop:
            workshop.engine.start()
            task = workshop.engine.tasks[bundle.task]
            found = workshop.ledger.lineages(bundle.task)
            assert all(workshop.blobs.intact(one.sha256) for one in found)
            ends.add((task.version, task.pending, len(found)))
            assert workshop.outbox.announcements(bundle.task)[-1].version == task.version
            go_on(workshop, bundle, "bcbc", first=50)
            comes_out(workshop, bundle)
        if not fuse.blown:
            break
        steps += 1
    done = {"rollback": (3, 1, 1), "promote": (3, 0, 1), "refold": (2, 1, 2)}
    assert ends == {(2, 1, 1), done[wish]}
    assert steps >= 4
