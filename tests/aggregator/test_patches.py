"""The cache of patches: what is lost is made again, what cannot be kept does no harm."""

import threading
from pathlib import Path

import numpy as np
import pytest

from aggregator import patches
from aggregator.patches import Patch, UnpublishedError
from tests.aggregator.workshop import Workshop, make_bundle, make_update
from wire.bundle import Bundle
from wire.delta import RowBlock

ITEMS, WIDTH = 400, 8


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return make_bundle(tmp_path / "bundle", items=ITEMS, width=WIDTH)


@pytest.fixture
def task(workshop: Workshop, bundle: Bundle) -> str:
    """A task of a few versions."""
    workshop.engine.register(bundle)
    for sequence in range(1, 13):
        rng = np.random.default_rng(sequence)
        rows = np.sort(rng.choice(ITEMS, 30, replace=False)).astype(np.int64)
        delta = {"item": RowBlock(rows, rng.normal(0, 0.2, (30, WIDTH)).astype(np.float32))}
        base = workshop.engine.tasks[bundle.task].version
        workshop.send("a", make_update(bundle, sequence, base=base, delta=delta))
    assert workshop.engine.tasks[bundle.task].version > 2
    return bundle.task


def offered(workshop: Workshop, bundle: Bundle, version: int, base: int) -> list[Patch]:
    return workshop.patches.to(bundle.task, bundle.manifest, version, base)


def folder(workshop: Workshop) -> Path:
    return workshop.patches._root


def test_a_patch_whose_file_was_lost_is_made_again(
    workshop: Workshop, bundle: Bundle, task: str
) -> None:
    before = offered(workshop, bundle, 3, 1)
    raw = workshop.patches.path(before[0].sha256).read_bytes()
    for path in folder(workshop).iterdir():
        path.unlink()
    with pytest.raises(KeyError):
        workshop.patches.path(before[0].sha256)
    assert offered(workshop, bundle, 3, 1) == before
    assert workshop.patches.path(before[0].sha256).read_bytes() == raw


def test_a_full_disk_offers_no_patch_and_leaves_nothing(
    workshop: Workshop, bundle: Bundle, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> None:
        path.touch()
        raise OSError(28, f"No space left on device for {len(data)} bytes")

    monkeypatch.setattr(Path, "write_bytes", full)
    assert offered(workshop, bundle, 3, 1) == []
    assert not list(folder(workshop).iterdir())


def test_the_folder_keeps_to_its_size_and_never_loses_the_newest(
    workshop: Workshop, bundle: Bundle, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    newest = workshop.engine.tasks[task].version
    monkeypatch.setattr(patches, "KEPT_BYTES", 2_000)
    for base in range(newest):
        offered(workshop, bundle, newest, base)
        sizes = [path.stat().st_size for path in folder(workshop).iterdir()]
        assert sum(sizes) <= 2_000 or len(sizes) == 1
    monkeypatch.setattr(patches, "KEPT_BYTES", 1)
    last = offered(workshop, bundle, newest, 1)[-1]
    assert [path.name for path in folder(workshop).iterdir()] == [last.sha256]


def test_a_publication_that_goes_while_it_is_read_is_unpublished(
    workshop: Workshop, bundle: Bundle, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = workshop.engine.tasks[task].published
    assert published is not None
    workshop.blobs.delete(published.sha256)
    monkeypatch.setattr(type(workshop.blobs), "has", lambda _self, _sha256: True)
    with pytest.raises(UnpublishedError):
        workshop.patches.rows(task, bundle.manifest, published.version, b"\0")
    assert offered(workshop, bundle, published.version, 1) == []


def test_who_waits_too_long_for_a_patch_is_told_so(
    workshop: Workshop, bundle: Bundle, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patches, "WAIT_S", 0.01)
    known = offered(workshop, bundle, 3, 1)
    for lock in workshop.patches._making:
        lock.acquire()
    with pytest.raises(TimeoutError):
        offered(workshop, bundle, 3, 2)
    # Not for one that is there.
    assert offered(workshop, bundle, 3, 1) == known


def test_many_threads_get_the_same_patches(workshop: Workshop, bundle: Bundle, task: str) -> None:
    found: list[list[Patch]] = []

    def ask() -> None:
        found.extend(offered(workshop, bundle, 3, base) for base in range(3))

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 18
    for base in range(3):
        again = offered(workshop, bundle, 3, base)
        assert found.count(again) == 6
        assert all(workshop.patches.path(patch.sha256).is_file() for patch in again)
