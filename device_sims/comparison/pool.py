"""Runs side by side: each in a process of its own on this machine, or on a Ray cluster."""

import multiprocessing
import shutil
import signal
import tempfile
import traceback
from collections.abc import Generator, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any, Protocol, cast

from device_sims.comparison.work import Work
from device_sims.interrupts import sparing

__all__ = ["Done", "Failed", "LocalPool", "Moved", "News", "Pool", "do"]


@dataclass(frozen=True, slots=True)
class Moved:
    """A run went on.

    Attributes:
        key: of the work.
        title: of the work.
        share: that is done, 0 to 1.
    """

    key: str
    title: str
    share: float


@dataclass(frozen=True, slots=True)
class Done:
    """A run finished.

    Attributes:
        key: of the work.
        title: of the work.
        result: what it gave.
    """

    key: str
    title: str
    result: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Failed:
    """A run failed.

    Attributes:
        key: of the work.
        title: of the work.
        error: what a person reads, in one line.
        trace: what a developer reads.
    """

    key: str
    title: str
    error: str
    trace: str


News = Moved | Done | Failed


class Pool(Protocol):
    """Does work, several at a time."""

    def run(self, works: Iterable[Work]) -> Generator[News, None, None]:
        """Do all of it, in no certain order, and tell what happens.

        The next work is asked for only when there is room for it. Closing the iterator stops what
        is under way. At Ctrl-C what has ended until then is told first.
        """
        ...


class LocalPool:
    """A process for each run, so that what a run took is given back when it ends.

    Args:
        processes: at a time, at least 1.
        folder: for what runs write; made, and removed when all is done.
    """

    def __init__(self, processes: int, folder: Path) -> None:
        self._processes, self._folder = processes, folder

    def run(self, works: Iterable[Work]) -> Generator[News, None, None]:
        """See ``Pool``."""
        shutil.rmtree(self._folder, ignore_errors=True)
        left, busy = iter(works), dict[Connection, tuple[Work, SpawnProcess]]()
        try:
            while True:
                while len(busy) < self._processes and (work := next(left, None)) is not None:
                    busy.update([self._start(work)])
                if not busy:
                    return
                for ready in cast(list[Connection], wait(list(busy))):
                    work, process = busy[ready]
                    news = _heard(ready, work, process)
                    if isinstance(news, Moved):
                        yield news
                    else:
                        del busy[ready]
                        yield from _told(ready, process, news)
        except KeyboardInterrupt:
            yield from _ended(busy)
            raise
        finally:
            for _, process in busy.values():
                process.kill()
                process.join()
            shutil.rmtree(self._folder, ignore_errors=True)

    def _start(self, work: Work) -> tuple[Connection, tuple[Work, SpawnProcess]]:
        # No fork: the threads of PyTorch and ONNX Runtime would be missing in the copy.
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe(duplex=False)
        self._folder.mkdir(parents=True, exist_ok=True)
        process = context.Process(target=_child, args=(there, work, self._folder), daemon=True)
        # Here the parent decides what ends, and not while it starts something.
        with sparing():
            process.start()
        there.close()
        return here, (work, process)


def do(work: Work, folder: Path, tell: "Connection | None" = None) -> Done | Failed:
    """Do some work here and now.

    Args:
        work: what.
        folder: where it may make a folder for itself.
        tell: is sent a `Moved` now and then.
    """

    def progress(share: float) -> None:
        if tell is not None:
            tell.send(Moved(work.key, work.title, share))

    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix="run-") as place:
            return Done(work.key, work.title, work(Path(place), progress))
    except BrokenPipeError:
        raise
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
        return Failed(work.key, work.title, said, traceback.format_exc())


def _child(tell: Connection, work: Work, folder: Path) -> None:
    # Nobody listens any more: the parent is gone.
    with suppress(BrokenPipeError):
        tell.send(do(work, folder, tell))


def _told(ready: Connection, process: SpawnProcess, news: News) -> Iterator[News]:
    """Tell how a run ended before waiting for its process: Ctrl-C may come meanwhile."""
    try:
        yield news
    finally:
        process.join()
        ready.close()


def _ended(busy: dict[Connection, tuple[Work, SpawnProcess]]) -> Iterator[News]:
    """The runs that have ended and of which nobody has heard yet."""
    for ready, (work, process) in list(busy.items()):
        while ready.poll():
            news = _heard(ready, work, process)
            if not isinstance(news, Moved):
                del busy[ready]
                yield from _told(ready, process, news)
                break


def _heard(tell: Connection, work: Work, process: SpawnProcess) -> News:
    try:
        news: News = tell.recv()
    except (EOFError, ConnectionResetError):
        process.join()
        how = f"ended with code {process.exitcode}"
        if process.exitcode == -signal.SIGKILL:
            how = "was killed, perhaps for want of memory"
        said = f"its process {how}; the same command runs what is missing"
        return Failed(work.key, work.title, said, said)
    return news
