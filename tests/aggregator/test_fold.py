"""Any version can be rebuilt bit for bit, by every rule, whichever snapshots are left."""

from pathlib import Path

import pytest

from aggregator.fold import Fold, FoldError
from aggregator.merging import Rule
from aggregator.snapshots import encode_snapshot
from tests.aggregator.training import OFTEN, RULES, VERSIONS, train
from tests.aggregator.workshop import Workshop, make_update, open_workshop
from wire.bundle import Bundle


def fold(workshop: Workshop, bundle: Bundle) -> Fold:
    return Fold(workshop.ledger, bundle.task, bundle.manifest.federated)


def forget_snapshots(workshop: Workshop, bundle: Bundle) -> None:
    for version, sha256 in workshop.ledger.snapshots(bundle.task):
        if version:
            workshop.ledger.forget_snapshot(bundle.task, version)
            workshop.blobs.delete(sha256)


@pytest.mark.parametrize("name", RULES)
def test_every_version_is_rebuilt_bit_for_bit(tmp_path: Path, bundle: Bundle, name: str) -> None:
    with open_workshop(tmp_path / "data", rule=RULES[name], retention=OFTEN) as workshop:
        digests = train(workshop, bundle)
        live = encode_snapshot(workshop.engine.tasks[bundle.task].state)
        assert [version for version, _ in workshop.ledger.snapshots(bundle.task)] == [0, 5, 9]
        for version, digest in enumerate(digests):
            folded = fold(workshop, bundle).rebuild(workshop.blobs, version)
            assert (folded.state.version, folded.digest) == (version, digest)
            assert folded.replayed == 3 * (version % 5 if version < 9 else 0)
        # From the bundle alone, through every snapshot's content.
        forget_snapshots(workshop, bundle)
        folded = fold(workshop, bundle).rebuild(workshop.blobs, VERSIONS)
        assert (folded.digest, folded.replayed) == (digests[-1], 3 * VERSIONS)
        assert encode_snapshot(folded.state) == live


@pytest.mark.parametrize("name", RULES)
def test_a_restart_goes_on_as_if_there_had_been_none(
    tmp_path: Path, bundle: Bundle, name: str
) -> None:
    digests = []
    for lives in (1, 3):
        folder = tmp_path / f"{lives}"
        for life in range(lives):
            with open_workshop(folder, rule=RULES[name]) as workshop:
                workshop.engine.start()
                workshop.engine.register(bundle)
                for number in range(12 // lives * life, 12 // lives * (life + 1)):
                    update = make_update(bundle, number + 1, base=number // 4)
                    workshop.send("abcd"[number % 4], update)
                if life == 1:
                    workshop.engine.save_all()
                newest = workshop.engine.tasks[bundle.task].newest
        digests.append(newest.digest)
    assert newest.version == 4
    assert digests[0] == digests[1]


def test_a_merge_that_left_updates_out_is_rebuilt(tmp_path: Path, bundle: Bundle) -> None:
    rule = Rule(buffer_size=5, row_clip=1.0, trim=0.2, krum_byzantine=1)
    with open_workshop(tmp_path / "data", rule=rule) as workshop:
        workshop.engine.start()
        workshop.engine.register(bundle)
        for number in range(10):
            workshop.send("abcde"[number % 5], make_update(bundle, number + 1))
        task = workshop.engine.tasks[bundle.task]
        folded = fold(workshop, bundle).rebuild(workshop.blobs, 2)
        assert (task.newest.version, folded.replayed) == (2, 10)
        assert folded.digest == task.newest.digest
        assert encode_snapshot(folded.state) == encode_snapshot(task.state)


def test_a_damaged_snapshot_is_passed_over(tmp_path: Path, bundle: Bundle) -> None:
    with open_workshop(tmp_path / "data", retention=OFTEN) as workshop:
        digests = train(workshop, bundle)
        for _, sha256 in workshop.ledger.snapshots(bundle.task)[1:]:
            path = workshop.blobs.path(sha256)
            path.write_bytes(path.read_bytes()[:-4] + b"oops")
    with open_workshop(tmp_path / "data") as workshop:
        workshop.engine.start()
        assert workshop.engine.tasks[bundle.task].newest.digest == digests[-1]
        folded = fold(workshop, bundle).rebuild(workshop.blobs, VERSIONS)
        assert (folded.digest, folded.replayed) == (digests[-1], 3 * VERSIONS)


def test_without_any_snapshot_there_is_nothing_to_fold_from(
    workshop: Workshop, bundle: Bundle
) -> None:
    train(workshop, bundle)
    for _, sha256 in workshop.ledger.snapshots(bundle.task):
        workshop.blobs.delete(sha256)
    with pytest.raises(FoldError, match="no snapshot"):
        fold(workshop, bundle).rebuild(workshop.blobs, VERSIONS)


def test_a_version_that_does_not_exist_cannot_be_rebuilt(
    workshop: Workshop, bundle: Bundle
) -> None:
    with pytest.raises(FoldError, match="version 99"):
        fold(workshop, bundle).rebuild(workshop.blobs, 99)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE updates SET base_version = base_version + 1 WHERE id = 5",
        "UPDATE updates SET payload = (SELECT payload FROM updates WHERE id = 1) WHERE id = 5",
        "UPDATE updates SET merged_in = 3 WHERE id = 5",
        "UPDATE versions SET rule = json_set(rule, '$.server_learning_rate', 0.9) "
        "WHERE version = 2",
        "UPDATE versions SET digest = (SELECT digest FROM versions WHERE version = 1) "
        "WHERE version = 2",
    ],
)
def test_a_ledger_that_was_changed_is_noticed(tmp_path: Path, bundle: Bundle, change: str) -> None:
    with open_workshop(tmp_path / "data") as workshop:
        train(workshop, bundle)
        forget_snapshots(workshop, bundle)
        with workshop.ledger._database.begin() as connection:
            connection.exec_driver_sql(change)
        with pytest.raises(FoldError, match=r"version 2 .* was recorded as"):
            fold(workshop, bundle).rebuild(workshop.blobs, VERSIONS)
