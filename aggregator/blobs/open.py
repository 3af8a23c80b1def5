"""From a URL to the place for blobs that it names."""

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from aggregator.blobs.cache import Cache
from aggregator.blobs.folder import FolderBlobs
from aggregator.blobs.protocol import BlobError, Blobs

__all__ = ["open_blobs"]

EXPECTED = "expected a folder, or s3://BUCKET/PREFIX?endpoint=URL&region=NAME"
# A merge that cannot be written is tried again by the engine: it must not be held up for long.
PATIENCE: Mapping[str, Any] = {
    "client_options": {"connect_timeout": "3s", "read_timeout": "10s", "timeout": "1h"},
    "retry_config": {"max_retries": 3, "retry_timeout": timedelta(seconds=5)},
}


def open_blobs(url: str, *, cache: Path, cache_bytes: int, redirect: bool = False) -> Blobs:
    """Open the place for blobs that a URL names.

    Args:
        url: a folder's path, or ``s3://BUCKET/PREFIX``, where ``?endpoint=URL`` names a service
            other than Amazon's and ``region=NAME`` a region. Credentials come from the variables
            ``AWS_ACCESS_KEY_ID`` and ``AWS_SECRET_ACCESS_KEY``, or from the machine's or the
            container's role.
        cache: folder for copies of what is not on this machine.
        cache_bytes: how much the copies may take.
        redirect: let clients fetch from the bucket itself, by signed URLs.

    Raises:
        BlobError: the URL is not one of these, or a package is missing for it.
        BlobsUnavailableError: the bucket cannot be read.
        OSError: the folder cannot be used.
    """
    if "://" not in url:
        return FolderBlobs(Path(url))
    return _open_bucket(url, cache, cache_bytes, redirect=redirect)


def _open_bucket(url: str, cache: Path, cache_bytes: int, *, redirect: bool) -> Blobs:
    try:
        parsed = urlsplit(url)
        options = dict(parse_qsl(parsed.query, strict_parsing=bool(parsed.query)))
    except ValueError:
        raise BlobError(f"the blobs' URL is not one; {EXPECTED}") from None
    if "@" in parsed.netloc:
        raise BlobError(
            "the blobs' URL holds credentials, which logs would show; set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY instead"
        )
    endpoint = options.pop("endpoint", None)
    region = options.pop("region", None)
    if parsed.scheme != "s3" or not parsed.netloc or options or parsed.fragment:
        raise BlobError(f"the blobs' URL is {url!r}; {EXPECTED}")
    try:
        from obstore.store import S3Store

        from aggregator.blobs.bucket import BucketBlobs
    except ModuleNotFoundError as error:
        raise BlobError(f"S3 needs the package {error.name}; install rivulet[s3]") from None
    places = {"endpoint": endpoint, "region": region}
    config: Any = {key: value for key, value in places.items() if value is not None}
    client: Any = dict(PATIENCE["client_options"])
    if endpoint is not None and endpoint.startswith("http:"):
        client["allow_http"] = True
    store = S3Store(
        parsed.netloc,
        prefix=parsed.path.strip("/") or None,
        config=config,
        client_options=client,
        retry_config=PATIENCE["retry_config"],
    )
    blobs = BucketBlobs(store, Cache(cache, cache_bytes), redirect=redirect)
    blobs.check()
    return blobs
