"""Ctrl-C that waits for what is happening."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["interrupting"]


@contextmanager
def interrupting(interrupt: Callable[[], object]) -> Iterator[None]:
    """Call something at Ctrl-C instead of raising, where in between nothing would be consistent.

    Args:
        interrupt: called between two instructions of the main thread; elsewhere nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, lambda _signal, _frame: interrupt())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
