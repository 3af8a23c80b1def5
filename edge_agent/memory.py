"""Settings of the process's memory, for a device that has little: what was used is given back."""

import contextlib
import ctypes
import gc
from collections.abc import Iterator
from pathlib import Path

__all__ = ["give_back", "keep_small"]

# From malloc.h of glibc; another C library has no mallopt, and needs none.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
THRESHOLD_BYTES = 1 << 16
MADV_DONTNEED = 4
MAPPINGS = Path("/proc/self/smaps")


def keep_small() -> None:
    """Call before threads start: one heap for all of them, and large arrays outside it.

    By default each thread has a heap of its own, and none gives back the peak of a local update.
    """
    with contextlib.suppress(AttributeError, OSError):
        library = ctypes.CDLL(None)
        for parameter, value in (
            (M_ARENA_MAX, 1),
            (M_MMAP_THRESHOLD, THRESHOLD_BYTES),
            (M_TRIM_THRESHOLD, THRESHOLD_BYTES),
        ):
            library.mallopt(parameter, value)


def give_back() -> None:
    """Call after start-up: let go of what only start-up needed.

    Python's garbage is collected, and library code is unmapped. Code that runs again is mapped
    again, from the page cache as a rule; the rest (a runtime registers hundreds of operators when
    it is loaded) is the kernel's to reclaim at once. 6 MB of resident memory on x86-64.
    """
    gc.collect()
    gc.freeze()
    with contextlib.suppress(AttributeError, OSError):
        library = ctypes.CDLL(None)
        for start, size in _pure_code(MAPPINGS.read_text(encoding="utf-8", errors="replace")):
            library.madvise(ctypes.c_void_p(start), ctypes.c_size_t(size), MADV_DONTNEED)


def _pure_code(mappings: str) -> Iterator[tuple[int, int]]:
    """Address and size of mapped code of which no page was changed: a changed one would be lost."""
    start = size = 0
    for line in mappings.splitlines():
        words = line.split()
        if "-" in words[0]:
            first, last = (int(word, 16) for word in words[0].split("-"))
            code = words[1] == "r-xp" and len(words) > 5 and words[5].startswith("/")
            start, size = (first, last - first) if code else (0, 0)
        elif line.startswith("Anonymous:") and size and words[1] == "0":
            yield start, size
