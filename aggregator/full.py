"""What an operator reads when there is no space left."""

import errno

from wire.messages import Refusal

__all__ = ["describe", "storage_full"]

NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def storage_full(where: str, said: str) -> str:
    """Name it, and say what to do.

    Args:
        where: what has no space, as the beginning of a sentence.
        said: by the system.
    """
    return (
        f"{Refusal.STORAGE_FULL.slug}: {where} has no space left ({said}); make some: nothing is "
        "lost, what waits is tried again every second"
    )


def describe(error: Exception) -> str:
    """An error of writing a blob or to the ledger, by name if there is no space."""
    if isinstance(error, OSError) and error.errno in NO_SPACE:
        return storage_full("the folder of the blobs, or of temporary files,", str(error))
    return str(error)
