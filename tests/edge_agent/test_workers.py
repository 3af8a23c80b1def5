"""Threads: order within an agent, none between agents, and an end."""

import logging
import threading

import pytest

from edge_agent.workers import Serial, Workers
from tests.edge_agent.running import DEADLINE_S, wait_until


def test_serial_calls_keep_their_order_and_never_overlap() -> None:
    workers = Workers(4)
    serials = [Serial(workers) for _ in range(5)]
    done: list[list[int]] = [[] for _ in serials]
    inside = [0] * len(serials)
    overlaps: list[int] = []

    def call(which: int, number: int) -> None:
        inside[which] += 1
        if inside[which] > 1:
            overlaps.append(which)
        done[which].append(number)
        inside[which] -= 1

    for number in range(200):
        for which, serial in enumerate(serials):
            serial.post(lambda which=which, number=number: call(which, number))  # type: ignore[misc]
    wait_until(lambda: sum(map(len, done)) == 1000)
    assert done == [list(range(200))] * len(serials)
    assert not overlaps
    assert workers.stop(DEADLINE_S)


def test_agents_do_not_wait_for_each_other() -> None:
    workers, gate, passed = Workers(2), threading.Event(), threading.Event()
    Serial(workers).post(gate.wait)
    Serial(workers).post(passed.set)
    assert passed.wait(DEADLINE_S)
    gate.set()
    assert workers.stop(DEADLINE_S)


def test_an_exception_is_logged_and_the_next_call_made(caplog: pytest.LogCaptureFixture) -> None:
    workers, passed = Workers(1), threading.Event()
    serial = Serial(workers)

    def fail() -> None:
        raise ValueError("on purpose")

    with caplog.at_level(logging.ERROR):
        serial.post(fail)
        serial.post(passed.set)
        assert passed.wait(DEADLINE_S)
    assert "on purpose" in caplog.text
    assert workers.stop(DEADLINE_S)


def test_stop_does_not_wait_for_ever() -> None:
    workers, gate = Workers(1), threading.Event()
    workers.post(gate.wait)
    assert not workers.stop(0.01)
    gate.set()


def test_threads_start_only_when_needed() -> None:
    def started() -> list[str]:
        return [thread.name for thread in threading.enumerate() if thread.name.startswith("lazy-")]

    workers = Workers(8, "lazy")
    assert started() == []
    done = threading.Event()
    workers.post(done.set)
    assert done.wait(DEADLINE_S)
    assert started() == ["lazy-0"]
    assert workers.stop(DEADLINE_S)
    assert started() == []
