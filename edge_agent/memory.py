"""Settings of the process's memory, for a device that has little: what was used is given back."""

import contextlib
import ctypes
import gc

__all__ = ["give_back", "keep_small"]

# From malloc.h of glibc; another C library has no mallopt, and needs none.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
THRESHOLD_BYTES = 1 << 16


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
    """Call after start-up: collect what the imports left behind, and never look at the rest again."""
    gc.collect()
    gc.freeze()
