"""Blobs in a folder: what is on the disk after what."""

import hashlib
import os
from pathlib import Path

import pytest

from aggregator.blobs import BlobError, FolderBlobs

DATA = b"some parameters"
SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def blobs(tmp_path: Path) -> FolderBlobs:
    return FolderBlobs(tmp_path / "blobs")


def files(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file()]


def test_a_wrong_digest_leaves_nothing(blobs: FolderBlobs, tmp_path: Path) -> None:
    with pytest.raises(BlobError, match="not " + "0" * 64), blobs.upload("0" * 64) as upload:
        upload.write(DATA)
    assert files(tmp_path) == []


def test_an_upload_that_breaks_off_leaves_nothing(blobs: FolderBlobs, tmp_path: Path) -> None:
    def broken() -> None:
        with blobs.upload(SHA256) as upload:
            upload.write(DATA[:3])
            raise ConnectionError

    with pytest.raises(ConnectionError):
        broken()
    assert files(tmp_path) == []


def test_what_a_crash_left_behind_is_removed(blobs: FolderBlobs, tmp_path: Path) -> None:
    half = tmp_path / "blobs" / "incoming" / "half"
    half.write_bytes(b"ha")
    kept = blobs.put(DATA)
    # Another process may be writing it.
    assert FolderBlobs(tmp_path / "blobs").has(kept)
    assert half.exists()
    os.utime(half, (0, 0))
    assert FolderBlobs(tmp_path / "blobs").has(kept)
    assert [path.name for path in files(tmp_path)] == [kept]


def test_a_damaged_blob_is_stored_anew(blobs: FolderBlobs, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(DATA)
    blobs.put(DATA)
    for store in (lambda: blobs.put(DATA), lambda: blobs.put_file(source, SHA256)):
        blobs.path(SHA256).write_bytes(DATA[::-1])
        assert not blobs.intact(SHA256)
        store()
        assert blobs.path(SHA256).read_bytes() == DATA
    assert blobs.intact(SHA256)
    assert not blobs.intact("0" * 64)
    assert not blobs.intact("../" * 3)
