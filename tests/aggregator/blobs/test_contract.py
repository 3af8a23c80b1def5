"""Blobs: whole or not there, and always what their name says; wherever they are."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from aggregator.blobs import BlobError, Blobs, open_blobs

DATA = b"some parameters"
SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def elsewhere(blobs_url: str, tmp_path: Path) -> Blobs:
    """The same blobs, as another process on another machine sees them."""
    return open_blobs(blobs_url, cache=tmp_path / "another-cache", cache_bytes=1 << 20)


def test_put_and_read_back(blobs: Blobs, elsewhere: Blobs) -> None:
    assert blobs.put(DATA) == SHA256
    assert blobs.put(DATA) == SHA256
    for place in (blobs, elsewhere):
        assert place.has(SHA256)
        assert place.size_bytes(SHA256) == len(DATA)
        assert place.path(SHA256).read_bytes() == DATA
        assert place.intact(SHA256)
        assert place.address(SHA256) is None


def test_what_is_not_there(blobs: Blobs) -> None:
    assert not blobs.has(SHA256)
    assert not blobs.intact(SHA256)
    for ask in (blobs.path, blobs.size_bytes):
        with pytest.raises(KeyError):
            ask(SHA256)


def test_all_that_is_there_is_listed(blobs: Blobs, elsewhere: Blobs) -> None:
    assert set(elsewhere.names()) == set()
    stored = {blobs.put(bytes([n])) for n in range(5)}
    assert set(elsewhere.names()) == stored
    gone = stored.pop()
    blobs.delete(gone)
    assert set(elsewhere.names()) == stored


def test_an_upload_in_portions(blobs: Blobs, elsewhere: Blobs) -> None:
    with blobs.upload(SHA256) as upload:
        upload.write(DATA[:4])
        assert not blobs.has(SHA256)
        upload.write(DATA[4:])
    assert upload.size_bytes == len(DATA)
    assert elsewhere.path(SHA256).read_bytes() == DATA


def test_an_upload_that_is_named_by_what_it_holds(blobs: Blobs, elsewhere: Blobs) -> None:
    with blobs.upload() as upload:
        upload.write(DATA[:4])
        upload.write(DATA[4:])
        assert not blobs.has(SHA256)
    assert upload.sha256() == SHA256
    assert elsewhere.path(SHA256).read_bytes() == DATA


def test_a_wrong_digest_leaves_nothing(blobs: Blobs) -> None:
    with pytest.raises(BlobError, match="not " + "0" * 64), blobs.upload("0" * 64) as upload:
        upload.write(DATA)
    assert not blobs.has("0" * 64)
    assert not blobs.has(SHA256)


def test_an_upload_that_breaks_off_leaves_nothing(blobs: Blobs) -> None:
    def broken() -> None:
        with blobs.upload(SHA256) as upload:
            upload.write(DATA)
            raise ConnectionError

    with pytest.raises(ConnectionError):
        broken()
    assert not blobs.has(SHA256)


def test_put_file_checks_the_digest(blobs: Blobs, elsewhere: Blobs, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(DATA)
    for _ in range(2):
        blobs.put_file(source, SHA256)
        assert elsewhere.path(SHA256).read_bytes() == DATA
    with pytest.raises(BlobError):
        blobs.put_file(source, "1" * 64)
    assert not blobs.has("1" * 64)


def test_a_large_blob_arrives_whole(blobs: Blobs, elsewhere: Blobs) -> None:
    large = bytes(range(256)) * 50_000
    sha256 = blobs.put(large)
    assert elsewhere.size_bytes(sha256) == len(large)
    assert elsewhere.path(sha256).read_bytes() == large


def test_an_empty_blob_is_one(blobs: Blobs, elsewhere: Blobs) -> None:
    sha256 = blobs.put(b"")
    assert elsewhere.size_bytes(sha256) == 0
    assert elsewhere.path(sha256).read_bytes() == b""


@pytest.mark.parametrize("name", ["", "..", "../../etc/passwd", "A" * 64, "0" * 63])
def test_only_a_digest_is_a_name(blobs: Blobs, name: str) -> None:
    assert not blobs.has(name)
    assert not blobs.intact(name)
    for ask in (blobs.path, blobs.size_bytes):
        with pytest.raises(KeyError):
            ask(name)
    with pytest.raises(BlobError, match="not a SHA-256"), blobs.upload(name):
        pass
    blobs.delete(name)


def test_delete(blobs: Blobs, elsewhere: Blobs) -> None:
    blobs.put(DATA)
    blobs.delete(SHA256)
    blobs.delete(SHA256)
    for place in (blobs, elsewhere):
        assert not place.has(SHA256)
        with pytest.raises(KeyError):
            place.path(SHA256)


def test_many_threads_read_and_write_the_same(blobs: Blobs, elsewhere: Blobs) -> None:
    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(blobs.put, [DATA] * 16)) == {SHA256}
        contents = threads.map(lambda _: elsewhere.path(SHA256).read_bytes(), range(16))
        assert set(contents) == {DATA}
