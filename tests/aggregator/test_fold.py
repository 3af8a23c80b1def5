"""Any version can be rebuilt bit for bit, whichever snapshots are left."""

from pathlib import Path

import numpy as np
import pytest

from aggregator.fold import FoldError, rebuild
from aggregator.merging import RowCorrection, Rule, Weighting
from aggregator.orders import Steering
from aggregator.retention import Retention
from aggregator.snapshots import encode_snapshot
from tests.aggregator.workshop import Workshop, make_update, open_workshop
from wire.bundle import Bundle
from wire.policy import CodecPolicy

VERSIONS = 8


def train(workshop: Workshop, bundle: Bundle) -> list[str]:
    """Some versions of changing rules and stale, compressed updates; their digests."""
    workshop.engine.start()
    workshop.engine.register(bundle)
    task = workshop.engine.tasks[bundle.task]
    rng = np.random.default_rng(3)
    digests, sequence = [task.newest.sha256], 0
    for version in range(VERSIONS):
        if version == 4:
            rule = {"weighting": Weighting.EXAMPLES.value, "server_learning_rate": 1.5}
            workshop.engine.steer(bundle.task, Steering(rule=rule))
        for _ in range(3):
            sequence += 1
            base = int(rng.integers(0, version + 1))
            workshop.send("a", make_update(bundle, sequence, base=base, codec=CodecPolicy()))
        digests.append(task.newest.sha256)
    return digests


def digest(workshop: Workshop, bundle: Bundle, version: int) -> str:
    state = rebuild(
        workshop.ledger,
        workshop.blobs,
        bundle.manifest.federated,
        task=bundle.task,
        version=version,
    )
    assert state.version == version
    return workshop.blobs.put(encode_snapshot(state.parameters))


@pytest.mark.parametrize("correction", list(RowCorrection))
def test_every_pruned_version_is_rebuilt_bit_for_bit(
    tmp_path: Path, bundle: Bundle, correction: RowCorrection
) -> None:
    rule = Rule(buffer_size=3, row_correction=correction)
    retention = Retention(keep_last=1, keep_every=5)
    with open_workshop(tmp_path / "data", rule=rule, retention=retention) as workshop:
        digests = train(workshop, bundle)
        pruned = [v for v, sha256 in enumerate(digests) if not workshop.blobs.has(sha256)]
        assert pruned == [1, 2, 3, 4, 6, 7]
        for version in pruned:
            assert digest(workshop, bundle, version) == digests[version]
            workshop.blobs.delete(digests[version])


def test_a_damaged_newest_snapshot_is_rebuilt_at_start(tmp_path: Path, bundle: Bundle) -> None:
    with open_workshop(tmp_path / "data") as workshop:
        digests = train(workshop, bundle)
        path = workshop.blobs.path(digests[-1])
    path.write_bytes(path.read_bytes()[:-4] + b"oops")
    with open_workshop(tmp_path / "data") as workshop:
        workshop.engine.start()
        task = workshop.engine.tasks[bundle.task]
        assert workshop.blobs.put(encode_snapshot(task.state.parameters)) == digests[-1]


def test_the_ledger_and_the_bundle_are_enough(workshop: Workshop, bundle: Bundle) -> None:
    digests = train(workshop, bundle)
    for sha256 in digests[1:]:
        workshop.blobs.delete(sha256)
    assert digest(workshop, bundle, VERSIONS) == digests[-1]


def test_without_any_snapshot_there_is_nothing_to_fold_from(
    workshop: Workshop, bundle: Bundle
) -> None:
    for sha256 in train(workshop, bundle):
        workshop.blobs.delete(sha256)
    with pytest.raises(FoldError, match="no snapshot"):
        digest(workshop, bundle, VERSIONS)


def test_a_version_that_does_not_exist_cannot_be_rebuilt(
    workshop: Workshop, bundle: Bundle
) -> None:
    with pytest.raises(FoldError, match="version 99"):
        digest(workshop, bundle, 99)
