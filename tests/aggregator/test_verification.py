"""A ledger is believed for what comes out of it, and nothing else."""

from pathlib import Path

import pytest

from aggregator.fold import FoldError
from aggregator.ledger import Exclusion
from aggregator.refolding import refold
from aggregator.verification import Verification, verify
from tests.aggregator.training import OFTEN, RULES, VERSIONS, go_on, train
from tests.aggregator.workshop import Workshop, open_workshop
from wire.bundle import Bundle


def found(workshop: Workshop, bundle: Bundle, version: int | None = None) -> Verification:
    record = workshop.reports.task(bundle.task)
    assert record is not None
    return verify(workshop.ledger, workshop.blobs, record, version=version)


def change(workshop: Workshop, statement: str) -> None:
    with workshop.ledger._database.begin() as connection:
        connection.exec_driver_sql(statement)


@pytest.mark.parametrize("name", RULES)
def test_what_was_recorded_comes_out_whatever_way_the_task_went(
    tmp_path: Path, bundle: Bundle, name: str
) -> None:
    with open_workshop(tmp_path / "data", rule=RULES[name], retention=OFTEN) as workshop:
        train(workshop, bundle)
        workshop.engine.rollback(bundle.task, 3)
        go_on(workshop, bundle, "abcabca", first=900)
        specs = bundle.manifest.federated
        without = Exclusion(devices=("a",))
        made = refold(workshop.ledger, workshop.blobs, bundle.task, specs, without)
        lineage = made.keep(workshop.ledger, workshop.blobs, task=bundle.task, at=1.0)
        workshop.engine.promote(bundle.task, lineage.id)
        go_on(workshop, bundle, "abc", first=950)
        last = workshop.engine.tasks[bundle.task].version
        all_of_it = found(workshop, bundle)
        assert (all_of_it.differences, all_of_it.unreachable) == ([], [])
        assert (all_of_it.first, all_of_it.last, all_of_it.versions) == (0, last, last + 1)
        assert all_of_it.snapshots == len(workshop.ledger.snapshots(bundle.task))
        # What was gone back on is not part of the newest.
        newest = found(workshop, bundle, last)
        assert (newest.differences, newest.versions) == ([], last + 1 - (VERSIONS - 3))
        assert found(workshop, bundle, VERSIONS).versions == VERSIONS + 1


TAMPERINGS = {
    "UPDATE updates SET base_version = base_version + 1 WHERE id = 5": [
        "the updates of version 2 (ids 4, 5, 6) were",
        "version 2 comes out as",
    ],
    "UPDATE updates SET payload = (SELECT payload FROM updates WHERE id = 1) WHERE id = 5": [
        "one of its updates (ids 4, 5, 6)",
        "versions 3 to 9 follow",
    ],
    "UPDATE updates SET payload = x'00ff' WHERE id = 5": [
        "version 2 cannot be made again: the payload of update 5 of device",
    ],
    "UPDATE updates SET merged_in = 3 WHERE id = 5": [
        "version 2 was made of 3 updates, but the ledger has 2",
        "version 2 comes out as",
    ],
    "UPDATE updates SET examples = examples + 1 WHERE id = 20": ["version 7 comes out as"],
    "DELETE FROM updates WHERE id = 5": ["version 2 was made of 3 updates, but the ledger has 2"],
    "DELETE FROM versions WHERE version = 3": ["version 3 is missing"],
    "UPDATE versions SET rule = json_set(rule, '$.server_learning_rate', 0.9) WHERE version = 2": [
        "version 2 comes out as"
    ],
    "UPDATE versions SET rule = json_set(rule, '$.kind', 'none') WHERE version = 2": [
        "version 2 cannot be made again: rule.kind"
    ],
    "UPDATE versions SET digest = (SELECT digest FROM versions WHERE version = 1) "
    "WHERE version = 2": ["version 2 comes out as"],
    "UPDATE versions SET sha256 = (SELECT sha256 FROM versions WHERE version = 5) "
    "WHERE version = 7": ["the snapshot of version 7 is"],
}


@pytest.mark.parametrize("statement", TAMPERINGS)
def test_a_row_that_was_changed_is_found_and_named(
    tmp_path: Path, bundle: Bundle, statement: str
) -> None:
    # Examples count only where they weigh: from version 5 on.
    with open_workshop(tmp_path / "data", retention=OFTEN) as workshop:
        train(workshop, bundle)
        change(workshop, statement)
        differences = found(workshop, bundle).differences
        for sentence in TAMPERINGS[statement]:
            assert any(sentence in one for one in differences), differences
        assert TAMPERINGS[statement][0] in differences[0]


def test_only_the_digest_of_one_version_differs_if_only_that_was_changed(
    tmp_path: Path, bundle: Bundle
) -> None:
    with open_workshop(tmp_path / "data") as workshop:
        train(workshop, bundle)
        change(workshop, "UPDATE versions SET digest = replace(digest, '0', '1') WHERE version = 2")
        (difference,) = found(workshop, bundle).differences
        assert "version 2 comes out" in difference


def test_a_snapshot_that_is_not_what_comes_out_is_found(tmp_path: Path, bundle: Bundle) -> None:
    with open_workshop(tmp_path / "data", retention=OFTEN) as workshop:
        train(workshop, bundle)
        snapshots = dict(workshop.ledger.snapshots(bundle.task))
        path = workshop.blobs.path(snapshots[5])
        path.write_bytes(path.read_bytes()[:-4] + b"oops")
        workshop.blobs.delete(snapshots[9])
        differences = found(workshop, bundle).differences
        assert [d.partition(" (")[0] for d in differences] == [
            "the snapshot of version 5",
            "the snapshot of version 9",
        ]


def test_the_bundles_parameters_are_what_everything_begins_with(
    tmp_path: Path, bundle: Bundle
) -> None:
    with open_workshop(tmp_path / "data", retention=OFTEN) as workshop:
        train(workshop, bundle)
        workshop.blobs.delete(dict(workshop.ledger.snapshots(bundle.task))[0])
        result = found(workshop, bundle)
        assert "version 0 cannot be read" in result.differences[0]
        # From the next snapshot on it is looked at nevertheless.
        assert "versions 1 to 5 were not compared" in result.unreachable[0]
        assert len(result.differences) == 1
        assert result.versions == VERSIONS - 5


def test_a_history_that_was_rewritten_after_a_rollback_is_found(
    tmp_path: Path, bundle: Bundle
) -> None:
    with open_workshop(tmp_path / "data") as workshop:
        train(workshop, bundle)
        workshop.engine.rollback(bundle.task, 3)
        go_on(workshop, bundle, "abc", first=900)
        change(
            workshop, "UPDATE versions SET origin = json_set(origin, '$.of', 2) WHERE version = 10"
        )
        (first, *_) = found(workshop, bundle).differences
        assert first.startswith("version 10 comes out as")


def test_a_version_that_is_not_there_is_refused(workshop: Workshop, bundle: Bundle) -> None:
    with pytest.raises(FoldError, match="no version 1; the newest is 0"):
        found(workshop, bundle, 1)
