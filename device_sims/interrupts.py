"""Ctrl-C that waits for what is happening."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker

__all__ = ["interrupting", "sparing", "undisturbed"]


@contextmanager
def interrupting(interrupt: Callable[[], object]) -> Iterator[None]:
    """Call something at Ctrl-C instead of raising, where in between nothing would be consistent.

    Args:
        interrupt: called between two instructions of the main thread, may raise; elsewhere nothing
            changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, lambda _signal, _frame: interrupt())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Have Ctrl-C come only when the block has ended."""
    came = list[bool]()
    with interrupting(lambda: came.append(True)):
        yield
    if came:
        raise KeyboardInterrupt


@contextmanager
def sparing() -> Iterator[None]:
    """Keep Ctrl-C from the processes that are started meanwhile; here it comes afterwards.

    In a terminal it goes to all processes of a group, and a child keeps the mask that it is started
    with.
    """
    # Python starts it with the first process, and takes the mask away then.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
