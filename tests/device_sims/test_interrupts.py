"""Ctrl-C reaches whom it is meant for."""

import multiprocessing
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from device_sims.interrupts import interrupting, sparing, undisturbed

ROOT = Path(__file__).parents[2]
FIRST_AND_SECOND = """
from tests.device_sims.test_interrupts import start_child
print(start_child(), start_child())
"""


def start_child() -> bool:
    """Start a process; returns whether Ctrl-C is kept from it."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_tell, args=(theirs,))
    with sparing():
        process.start()
    told: bool = ours.recv()
    process.join()
    return told


def _tell(pipe: "multiprocessing.connection.Connection") -> None:
    pipe.send(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ()))


def test_processes_are_spared_the_first_one_too() -> None:
    # In an interpreter of its own: in this one, others have started processes before.
    command = [sys.executable, "-c", FIRST_AND_SECOND]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["True", "True"]


def test_what_comes_while_a_process_starts_comes_afterwards() -> None:
    happened: list[str] = []
    with interrupting(lambda: happened.append("interrupted")):
        with sparing():
            signal.raise_signal(signal.SIGINT)
            happened.append("started")
        assert happened == ["started", "interrupted"]
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_an_interruption_may_raise() -> None:
    def stop() -> None:
        raise KeyError("stopped")

    with pytest.raises(KeyError, match="stopped"), interrupting(stop):
        signal.raise_signal(signal.SIGINT)


def test_what_must_not_be_disturbed_ends_first() -> None:
    happened: list[str] = []

    def disturbed() -> None:
        with undisturbed():
            signal.raise_signal(signal.SIGINT)
            happened.append("ended")

    with pytest.raises(KeyboardInterrupt):
        disturbed()
    assert happened == ["ended"]
    with undisturbed():
        happened.append("again")
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
