"""The loop: timers, descriptors, other threads, and calls that fail."""

import logging
import os
import resource
import selectors
import threading
import time
from collections.abc import Callable

import pytest

from edge_agent.reactor import Reactor
from tests.edge_agent.running import DEADLINE_S, running_reactor, wait_until


def test_timers_run_in_order_and_can_be_cancelled() -> None:
    reactor = Reactor()
    done: list[str] = []
    reactor.call_later(0.02, lambda: done.append("second"))
    reactor.call_later(0.01, lambda: done.append("first"))
    reactor.call_later(0.015, lambda: done.append("never")).cancel()
    reactor.call_later(0.03, reactor.stop)
    start = time.monotonic()
    reactor.run()
    assert done == ["first", "second"]
    assert time.monotonic() - start >= 0.03
    reactor.close()


def test_other_threads_are_heard_at_once() -> None:
    with running_reactor() as reactor:
        done = threading.Event()
        reactor.call_soon_threadsafe(done.set)
        assert done.wait(DEADLINE_S)
        counted: list[int] = []
        post: Callable[..., object] = reactor.call_soon_threadsafe
        threads = [
            threading.Thread(
                target=lambda: [post(lambda: counted.append(1)) for _ in range(20_000)]
            )
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        wait_until(lambda: len(counted) == 80_000)


def test_descriptors_are_watched_until_they_are_not() -> None:
    with running_reactor() as reactor:
        ours, theirs = os.pipe()
        read: list[bytes] = []
        reactor.call_soon_threadsafe(
            lambda: reactor.watch(
                ours, selectors.EVENT_READ, lambda _events: read.append(os.read(ours, 9))
            )
        )
        os.write(theirs, b"one")
        wait_until(lambda: read == [b"one"])
        forgotten = threading.Event()
        reactor.call_soon_threadsafe(lambda: reactor.unwatch(ours))
        reactor.call_soon_threadsafe(forgotten.set)
        assert forgotten.wait(DEADLINE_S)
        os.write(theirs, b"two")
        reactor.call_soon_threadsafe(forgotten.clear)
        wait_until(lambda: not forgotten.is_set())
        assert read == [b"one"]
        os.close(ours)
        os.close(theirs)


def test_descriptors_above_select_s_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    held: list[int] = []
    try:
        while not held or held[-1] < 1100:
            held.append(os.open("/dev/null", os.O_RDONLY))
        with running_reactor() as reactor:
            ours, theirs = os.pipe()
            assert ours > 1023
            held += [ours, theirs]
            heard: list[bytes] = []
            reactor.call_soon_threadsafe(
                lambda: reactor.watch(
                    ours, selectors.EVENT_READ, lambda _events: heard.append(os.read(ours, 1))
                )
            )
            os.write(theirs, b"x")
            wait_until(lambda: heard == [b"x"])
    finally:
        for descriptor in held:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_blocking_work_comes_back_with_result_or_exception() -> None:
    with running_reactor() as reactor:
        results: list[object] = []
        gate = threading.Event()
        reactor.call_blocking(lambda: gate.wait(DEADLINE_S), results.append)
        reactor.call_blocking(lambda: 1 // 0, results.append)
        wait_until(lambda: len(results) == 1)
        assert isinstance(results[0], ZeroDivisionError)
        gate.set()
        wait_until(lambda: len(results) == 2)
        assert results[1] is True


def test_a_call_that_fails_does_not_stop_the_loop(caplog: pytest.LogCaptureFixture) -> None:
    with running_reactor() as reactor, caplog.at_level(logging.ERROR):
        done = threading.Event()
        reactor.call_soon_threadsafe(lambda: 1 // 0)
        reactor.call_soon_threadsafe(done.set)
        assert done.wait(DEADLINE_S)
    assert "ZeroDivisionError" in caplog.text
