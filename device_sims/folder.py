"""The folder of a run: emptied only if a run wrote it, and used by one run at a time."""

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["FolderError", "run_folder"]

MARKER = ".rivulet-run"


class FolderError(Exception):
    """The folder cannot be used; the text says why."""


@contextmanager
def run_folder(folder: Path, *, keep: bool = False) -> Iterator[Path]:
    """Make a folder ready for a run and keep others out until the run is over.

    Args:
        folder: missing, empty, or left by an earlier run, whose files are removed.
        keep: do not remove them: the run goes on with what it finds.

    Raises:
        FolderError: it holds something else, or another run uses it.
    """
    marker = folder / MARKER
    if folder.is_dir() and any(folder.iterdir()) and not marker.is_file():
        raise FolderError(f"{folder} holds files that no run wrote; name another --out")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = marker.open("w")
    except OSError as error:
        raise FolderError(f"cannot write {folder}: {error.strerror}") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FolderError(f"{folder} is used by another run; name another --out") from None
        for entry in () if keep else folder.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            elif entry != marker:
                entry.unlink()
        yield folder
