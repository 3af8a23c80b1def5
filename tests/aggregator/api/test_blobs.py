"""Blobs over HTTP: whole, in ranges, and never other than their name says."""

import hashlib
from pathlib import Path
from typing import Any

import httpx
import pytest

from aggregator.blobs import open_blobs
from tests.aggregator.api.conftest import Service
from tests.aggregator.bucket import BucketServer
from tests.aggregator.workshop import Workshop

DATA = bytes(range(256)) * 1000
SHA256 = hashlib.sha256(DATA).hexdigest()
AT = f"/v1/blobs/{SHA256}"


@pytest.fixture
def stored(workshop: Workshop) -> str:
    return workshop.blobs.put(DATA)


def test_put_and_get(client: httpx.Client) -> None:
    for _ in range(2):
        put = client.put(AT, content=DATA)
        assert (put.status_code, put.json()) == (201, {"size_bytes": len(DATA)})
    assert client.get(AT).content == DATA


@pytest.mark.parametrize("name", ["0" * 64, "short", "Z" * 64])
def test_put_checks_the_name(client: httpx.Client, name: str) -> None:
    refused = client.put(f"/v1/blobs/{name}", content=DATA)
    assert refused.status_code == 422
    assert "SHA-256" in refused.json()["detail"]
    assert client.get(f"/v1/blobs/{name}").status_code == 404


@pytest.mark.usefixtures("stored")
def test_a_blob_may_be_kept_for_ever(client: httpx.Client) -> None:
    headers = client.get(AT).headers
    assert headers["etag"] == f'"{SHA256}"'
    assert "immutable" in headers["cache-control"]
    assert headers["content-length"] == str(len(DATA))
    again = client.get(AT, headers={"If-None-Match": headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    head = client.head(AT)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(DATA))


@pytest.mark.usefixtures("stored")
@pytest.mark.parametrize(
    ("wanted", "first", "last"),
    [("bytes=0-0", 0, 0), ("bytes=1000-", 1000, len(DATA) - 1), ("bytes=5-1004", 5, 1004)],
)
def test_a_download_is_resumed(client: httpx.Client, wanted: str, first: int, last: int) -> None:
    part = client.get(AT, headers={"Range": wanted, "If-Range": f'"{SHA256}"'})
    assert part.status_code == 206
    assert part.content == DATA[first : last + 1]
    assert part.headers["content-range"] == f"bytes {first}-{last}/{len(DATA)}"


@pytest.mark.usefixtures("stored")
def test_a_range_beyond_the_end_is_refused(client: httpx.Client) -> None:
    assert client.get(AT, headers={"Range": f"bytes={len(DATA)}-"}).status_code == 416


@pytest.mark.usefixtures("stored")
def test_a_range_of_something_else_gets_everything(client: httpx.Client) -> None:
    whole = client.get(AT, headers={"Range": "bytes=5-", "If-Range": '"another"'})
    assert (whole.status_code, whole.content) == (200, DATA)


def test_a_missing_blob_says_what_to_do(client: httpx.Client) -> None:
    missing = client.get(AT)
    assert missing.status_code == 404
    assert "announced" in missing.json()["detail"]


@pytest.mark.parametrize("redirect", [False, True])
def test_a_blob_in_a_bucket_is_served_or_pointed_to(
    service: Service,
    bucket_url: str,
    bucket_server: BucketServer,
    tmp_path: Path,
    *,
    redirect: bool,
) -> None:
    def options(name: str) -> dict[str, Any]:
        return {"cache": tmp_path / name, "cache_bytes": 1 << 20, "redirect": redirect}

    open_blobs(bucket_url, **options("writer")).put(DATA)
    service.workshop.blobs = open_blobs(bucket_url, **options("reader"))
    with service.client() as client:
        head = client.head(AT)
        assert (head.status_code, head.headers["content-length"]) == (200, str(len(DATA)))
        part = client.get(AT, headers={"Range": "bytes=1000-"})
        assert (part.status_code, part.content) == (206, DATA[1000:])
        assert part.headers["content-range"] == f"bytes 1000-{len(DATA) - 1}/{len(DATA)}"
        assert str(part.url).startswith(bucket_server.endpoint) == redirect
        assert client.get(f"/v1/blobs/{'0' * 64}").status_code == 404


def test_a_bucket_that_is_away_is_tried_again_later(
    service: Service, bucket_url: str, bucket_server: BucketServer, tmp_path: Path
) -> None:
    service.workshop.blobs = open_blobs(bucket_url, cache=tmp_path / "cache", cache_bytes=0)
    bucket_server.stop()
    try:
        with service.client() as client:
            client.timeout = httpx.Timeout(30.0)
            answers = [client.get(AT), client.put(AT, content=DATA)]
    finally:
        bucket_server.start()
    for answer in answers:
        assert answer.status_code == 503
        assert "retry-after" in answer.headers
