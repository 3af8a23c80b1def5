"""Which names a blob can have. They come from URLs: only a digest may become a path or a key."""

import re

from aggregator.blobs.protocol import BlobError

__all__ = ["checked", "is_name"]

_SHA256 = re.compile(r"[0-9a-f]{64}")


def is_name(sha256: str) -> bool:
    """Whether it is a SHA-256 in lower-case hex."""
    return _SHA256.fullmatch(sha256) is not None


def checked(sha256: str) -> str:
    """The name itself.

    Raises:
        BlobError: it is not a SHA-256 in hex.
    """
    if not is_name(sha256):
        raise BlobError(f"{sha256!r:.80} is not a SHA-256; expected 64 lower-case hex characters")
    return sha256
