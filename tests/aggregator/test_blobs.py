"""Blobs: whole or not there, and always what their name says."""

import hashlib
from pathlib import Path

import pytest

from aggregator.blobs import BlobError, Blobs

DATA = b"some parameters"
SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    return Blobs(tmp_path / "blobs")


def files(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file()]


def test_put_and_read_back(blobs: Blobs) -> None:
    assert blobs.put(DATA) == SHA256
    assert blobs.put(DATA) == SHA256
    assert blobs.has(SHA256)
    assert blobs.path(SHA256).read_bytes() == DATA


def test_an_upload_in_portions(blobs: Blobs) -> None:
    with blobs.upload(SHA256) as upload:
        upload.write(DATA[:4])
        assert not blobs.has(SHA256)
        upload.write(DATA[4:])
    assert blobs.path(SHA256).read_bytes() == DATA


def test_a_wrong_digest_leaves_nothing(blobs: Blobs, tmp_path: Path) -> None:
    with pytest.raises(BlobError, match="not " + "0" * 64), blobs.upload("0" * 64) as upload:
        upload.write(DATA)
    assert files(tmp_path) == []


def test_an_upload_that_breaks_off_leaves_nothing(blobs: Blobs, tmp_path: Path) -> None:
    def broken() -> None:
        with blobs.upload(SHA256) as upload:
            upload.write(DATA[:3])
            raise ConnectionError

    with pytest.raises(ConnectionError):
        broken()
    assert files(tmp_path) == []


def test_what_a_crash_left_behind_is_removed(blobs: Blobs, tmp_path: Path) -> None:
    (tmp_path / "blobs" / "incoming" / "half").write_bytes(b"ha")
    kept = blobs.put(DATA)
    again = Blobs(tmp_path / "blobs")
    assert [path.name for path in files(tmp_path)] == [kept]
    assert again.has(kept)


def test_put_file_checks_the_digest(blobs: Blobs, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(DATA)
    blobs.put_file(source, SHA256)
    assert blobs.path(SHA256).read_bytes() == DATA
    with pytest.raises(BlobError):
        blobs.put_file(source, "1" * 64)


@pytest.mark.parametrize("name", ["", "..", "../../etc/passwd", "A" * 64, "0" * 63])
def test_only_a_digest_is_a_name(blobs: Blobs, name: str) -> None:
    assert not blobs.has(name)
    with pytest.raises(KeyError):
        blobs.path(name)
    with pytest.raises(BlobError, match="not a SHA-256"), blobs.upload(name):
        pass
    blobs.delete(name)


def test_a_damaged_blob_is_stored_anew(blobs: Blobs, tmp_path: Path) -> None:
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


def test_delete(blobs: Blobs) -> None:
    blobs.put(DATA)
    blobs.delete(SHA256)
    blobs.delete(SHA256)
    assert not blobs.has(SHA256)
