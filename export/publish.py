"""Hand a bundle to an aggregator over HTTP."""

import http.client
import json
import logging
import urllib.error
import urllib.parse
import urllib.request
from typing import IO, Any

from export.errors import PublishError
from wire.bundle import Bundle

__all__ = ["publish"]

TIMEOUT_S = 60.0
_MAX_ANSWER_BYTES = 1 << 20
_log = logging.getLogger(__name__)


def publish(bundle: Bundle, url: str, *, token: str | None = None) -> str:
    """Upload the files of a bundle by their digests, then its manifest, which makes the task.

    To publish a bundle again is harmless: its digests name the same files and the same task.

    Args:
        bundle: a checked bundle.
        url: of the aggregator, for example ``http://localhost:8080``.
        token: sent as a bearer token, if the aggregator asks for one.

    Returns:
        The task's name, 32 hex characters.

    Raises:
        PublishError: the aggregator is not there, refuses, or answers nonsense.
        OSError: a file of the bundle cannot be read.
    """
    base = _check_url(url)
    for entry in bundle.manifest.files:
        _log.info("sending %s, %d bytes", entry.path, entry.size_bytes)
        with bundle.path(entry).open("rb") as file:
            target = f"{base}/v1/blobs/{entry.sha256}"
            _send("PUT", target, file, entry.size_bytes, "application/octet-stream", token)
    raw = bundle.raw_manifest
    answer = _send("POST", f"{base}/v1/tasks", raw, len(raw), "application/json", token)
    _check_answer(answer, bundle.task)
    return bundle.task


def _check_url(url: str) -> str:
    try:
        parts = urllib.parse.urlsplit(url)
        valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise PublishError(f"{url!r} is no address of an aggregator; expected http://host:port")
    return url.rstrip("/")


def _send(
    method: str, url: str, body: bytes | IO[bytes], size: int, kind: str, token: str | None
) -> bytes:
    request = urllib.request.Request(url, data=body, method=method)
    # Without a length urllib would send a file in chunks, which not every proxy takes.
    request.add_header("Content-Length", str(size))
    request.add_header("Content-Type", kind)
    if token is not None:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
            return bytes(response.read(_MAX_ANSWER_BYTES))
    except urllib.error.HTTPError as error:
        with error:
            raise PublishError(f"{method} {url}: {error.code} {_detail(error)}") from None
    except urllib.error.URLError as error:
        raise PublishError(f"no aggregator at {url}: {error.reason}") from None
    except (OSError, http.client.HTTPException) as error:
        raise PublishError(f"{method} {url} was cut off: {error}") from None


def _detail(error: urllib.error.HTTPError) -> str:
    text = error.read(_MAX_ANSWER_BYTES).decode(errors="replace")
    try:
        answer: Any = json.loads(text)
    except ValueError:
        answer = None
    detail = answer.get("detail", text) if isinstance(answer, dict) else text
    return f"{error.reason}: {detail!s:.300}" if detail else str(error.reason)


def _check_answer(answer: bytes, task: str) -> None:
    try:
        named: Any = json.loads(answer)
    except ValueError:
        named = None
    found = named.get("task") if isinstance(named, dict) else None
    if found != task:
        raise PublishError(f"the aggregator named the task {found!r}; expected {task!r}")
