"""Blobs in a bucket: the copies on this machine, and a service that fails."""

import hashlib
import http.server
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from aggregator.blobs import BlobError, Blobs, BlobsUnavailableError, open_blobs
from tests.aggregator.bucket import BUCKET, CREDENTIALS, BucketServer
from tests.aggregator.mosquitto import free_port

DATA = b"some parameters"
SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def blobs(bucket_url: str, tmp_path: Path) -> Blobs:
    return open_blobs(bucket_url, cache=tmp_path / "cache", cache_bytes=1000)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No waiting for a service that is known to be down."""
    patience = {"client_options": {"connect_timeout": "1s"}, "retry_config": {"max_retries": 0}}
    monkeypatch.setattr("aggregator.blobs.open.PATIENCE", patience)


@contextmanager
def away(server: BucketServer) -> Iterator[None]:
    server.stop()
    try:
        yield
    finally:
        server.start()


def key_of(url: str, sha256: str) -> str:
    prefix = url.removeprefix(f"s3://{BUCKET}/").partition("?")[0]
    return f"/{prefix}/{sha256[:2]}/{sha256}"


def copies(root: Path) -> set[str]:
    return {path.name for path in (root / "cache").rglob("*") if path.is_file()}


def test_what_is_read_again_comes_from_this_machine(
    blobs: Blobs, bucket_server: BucketServer
) -> None:
    blobs.put(DATA)
    with away(bucket_server):
        assert blobs.path(SHA256).read_bytes() == DATA


def test_the_copies_used_longest_ago_give_way(blobs: Blobs, tmp_path: Path) -> None:
    names = [blobs.put(bytes([n]) * 400) for n in range(2)]
    for name, age_s in zip(names, (300, 200), strict=True):
        long_ago = time.time() - age_s
        os.utime(blobs.path(name), (long_ago, long_ago))
    third = blobs.put(b"x" * 400)
    assert copies(tmp_path) == {names[1], third}
    # What is in use stays, although it is too much.
    assert blobs.path(names[0]).read_bytes() == b"\0" * 400
    assert copies(tmp_path) == {names[0], third}
    assert blobs.path(names[1]).read_bytes() == b"\1" * 400
    assert copies(tmp_path) == {*names, third}


def test_a_damaged_copy_is_fetched_again(blobs: Blobs) -> None:
    blobs.put(DATA)
    blobs.path(SHA256).write_bytes(DATA[::-1])
    assert blobs.intact(SHA256)
    assert blobs.path(SHA256).read_bytes() == DATA


@pytest.mark.usefixtures("bucket_url")
def test_a_damaged_object_is_no_blob_and_is_stored_anew(
    blobs: Blobs, bucket_server: BucketServer, bucket_url: str, tmp_path: Path
) -> None:
    bucket_server.put(key_of(bucket_url, SHA256), DATA[::-1])
    assert not blobs.intact(SHA256)
    with pytest.raises(KeyError):
        blobs.path(SHA256)
    source = tmp_path / "source"
    source.write_bytes(DATA)
    blobs.put_file(source, SHA256)
    fresh = open_blobs(bucket_url, cache=tmp_path / "fresh", cache_bytes=1000)
    assert fresh.path(SHA256).read_bytes() == DATA


@pytest.mark.usefixtures("impatient")
def test_a_service_that_is_away_is_a_passing_refusal(
    blobs: Blobs, bucket_server: BucketServer, tmp_path: Path
) -> None:
    with away(bucket_server):
        for ask in (blobs.has, blobs.intact, blobs.path, blobs.size_bytes, blobs.delete):
            with pytest.raises(BlobsUnavailableError):
                ask(SHA256)
        with pytest.raises(BlobsUnavailableError):
            blobs.put(DATA)
        assert copies(tmp_path) == set()
    assert blobs.put(DATA) == SHA256
    assert blobs.has(SHA256)


@pytest.mark.usefixtures("impatient")
def test_a_service_that_is_away_at_the_start_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    url = f"s3://nowhere/?endpoint=http://127.0.0.1:{free_port()}"
    with pytest.raises(BlobsUnavailableError, match="the bucket cannot be listed") as refusal:
        open_blobs(url, cache=tmp_path / "cache", cache_bytes=0)
    assert CREDENTIALS["AWS_SECRET_ACCESS_KEY"] not in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_bucket_that_is_not_there_is_named(
    bucket_server: BucketServer, bucket_url: str, tmp_path: Path
) -> None:
    url = bucket_url.replace(BUCKET, "nowhere", 1)
    with pytest.raises(BlobsUnavailableError, match="nowhere"):
        open_blobs(url, cache=tmp_path / "cache", cache_bytes=0)


class _Refusal(http.server.BaseHTTPRequestHandler):
    status = 403

    def _refuse(self) -> None:
        self.send_response(self.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_HEAD = do_PUT = do_DELETE = _refuse  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("status", [401, 403, 500, 503])
def test_a_refusal_is_one_line(
    status: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(_Refusal, "status", status)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Refusal)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        url = f"s3://{BUCKET}/?endpoint=http://127.0.0.1:{server.server_port}"
        with pytest.raises(BlobsUnavailableError) as refusal:
            open_blobs(url, cache=tmp_path / "cache", cache_bytes=0)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert "\n" not in str(refusal.value)


def test_a_signed_address_is_good_for_anybody(
    blobs: Blobs, bucket_url: str, tmp_path: Path
) -> None:
    blobs.put(DATA)
    signing = open_blobs(bucket_url, cache=tmp_path / "fresh", cache_bytes=1000, redirect=True)
    address = signing.address(SHA256)
    assert address is not None
    part = httpx.get(address, headers={"Range": "bytes=5-"})
    assert (part.status_code, part.content) == (206, DATA[5:])
    with pytest.raises(KeyError):
        signing.address("0" * 64)


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("gs://bucket", "expected a folder, or s3://"),
        ("s3:///prefix", "expected a folder, or s3://"),
        ("s3://bucket?colour=blue", "expected a folder, or s3://"),
        ("s3://key:sesame@bucket/prefix", "set AWS_ACCESS_KEY_ID"),
        ("s3://[bucket", "is not one"),
    ],
)
def test_a_url_of_nothing_known_is_refused(url: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(BlobError, match=sentence) as refusal:
        open_blobs(url, cache=tmp_path / "cache", cache_bytes=0)
    assert "sesame" not in str(refusal.value)


def test_the_library_comes_with_an_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "obstore.store", None)
    with pytest.raises(BlobError, match=r"install rivulet\[s3\]"):
        open_blobs("s3://bucket", cache=tmp_path / "cache", cache_bytes=0)
