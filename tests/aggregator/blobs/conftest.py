"""Every test of the contract runs against every place for blobs."""

from pathlib import Path

import pytest

from aggregator.blobs import Blobs, open_blobs


@pytest.fixture(params=["folder", "bucket"])
def blobs_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "folder":
        return str(tmp_path / "blobs")
    url: str = request.getfixturevalue("bucket_url")
    return url


@pytest.fixture
def blobs(blobs_url: str, tmp_path: Path) -> Blobs:
    return open_blobs(blobs_url, cache=tmp_path / "cache", cache_bytes=1 << 20)
