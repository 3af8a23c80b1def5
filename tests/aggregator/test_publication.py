"""What is published of a version: rounded in portions, whatever the model has come to."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from aggregator.blobs import FolderBlobs
from aggregator.ledger import PublicationRecord
from aggregator.merging import ServerState
from aggregator.publication import publish
from wire.manifest import ParameterSpec, Role
from wire.parameters import map_parameters, write_parameters
from wire.patch import on_grid

SPECS = (
    ParameterSpec("item", Role.ROWS, (200_000, 40)),
    ParameterSpec("head", Role.DENSE, (3, 2)),
)


@pytest.fixture
def blobs(tmp_path: Path) -> FolderBlobs:
    return FolderBlobs(tmp_path / "blobs")


def published(state: ServerState, blobs: FolderBlobs) -> PublicationRecord:
    return publish(state, SPECS, blobs, task="0" * 32, exponents={}, at=0.0)


def normal(scale: float) -> ServerState:
    rng = np.random.default_rng(0)
    parameters = {
        spec.name: (scale * rng.standard_normal(spec.shape, np.float32)).astype(np.float32)
        for spec in SPECS
    }
    return ServerState(5, parameters, {})


def test_a_large_table_is_rounded_in_little_memory(blobs: FolderBlobs) -> None:
    state = normal(1.0)
    tracemalloc.start()
    record = published(state, blobs)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < state.parameters["item"].nbytes
    found = map_parameters(blobs.path(record.sha256))
    for name, values in state.parameters.items():
        assert np.array_equal(found[name], on_grid(values, record.exponents[name]))
    assert record.exponents == {"item": -2, "head": -7}


def test_what_is_published_is_the_file_that_a_device_makes(
    blobs: FolderBlobs, tmp_path: Path
) -> None:
    state = normal(1.0)
    record = published(state, blobs)
    with write_parameters(tmp_path / "made", SPECS) as made:
        for name, values in state.parameters.items():
            made[name][...] = on_grid(values, record.exponents[name])
    assert blobs.path(record.sha256).read_bytes() == (tmp_path / "made").read_bytes()
    assert record.size_bytes == (tmp_path / "made").stat().st_size


def test_a_publication_that_breaks_off_leaves_no_file(
    blobs: FolderBlobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_file: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        published(normal(1.0), blobs)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_a_model_that_has_gone_wrong_does_not_stop_the_aggregator(
    blobs: FolderBlobs, value: float
) -> None:
    state = normal(0.1)
    state.parameters["head"][1, 1] = value
    record = published(state, blobs)
    assert record.exponents["head"] == 0
    found = map_parameters(blobs.path(record.sha256))
    assert np.array_equal(found["head"][1, 1], np.float32(value), equal_nan=True)
