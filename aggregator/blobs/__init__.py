"""Immutable files by their SHA-256: bundles and snapshots, in a folder or in a bucket."""

from aggregator.blobs.folder import FolderBlobs
from aggregator.blobs.open import open_blobs
from aggregator.blobs.protocol import BlobError, Blobs, BlobsUnavailableError, Upload

__all__ = [
    "BlobError",
    "Blobs",
    "BlobsUnavailableError",
    "FolderBlobs",
    "Upload",
    "open_blobs",
]
