"""The engine's thread: batches, commands, a database that refuses, and death."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from aggregator.engine import Engine
from aggregator.ledger import LedgerUnavailableError
from aggregator.merging import Rule
from aggregator.metrics import Instruments
from aggregator.reception import Inbound
from aggregator.runner import Runner
from tests.aggregator.device import eventually
from tests.aggregator.workshop import ManualClock, Workshop, make_update, open_workshop
from wire.bundle import Bundle


class RealClock(ManualClock):
    """Time as it passes."""

    def time(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()


class Desk:
    """A runner over a real engine, and what it calls."""

    def __init__(self, workshop: Workshop) -> None:
        self.workshop = workshop
        self.rooms = 0
        self.deaths: list[BaseException] = []
        self.instruments = Instruments()
        self.runner = Runner(
            workshop.engine,
            instruments=self.instruments,
            on_room=self._on_room,
            on_death=self.deaths.append,
        )

    def _on_room(self) -> None:
        self.rooms += 1

    def post(self, payload: bytes) -> None:
        self.runner.post(self.workshop.outbox.inbound("a", payload))

    @property
    def acknowledged(self) -> int:
        return len(self.workshop.outbox.acknowledged)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with open_workshop(tmp_path / "data", clock=RealClock()) as workshop:
        desk = Desk(workshop)
        yield desk
        desk.runner.stop()


def slow_down(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, before: Callable[[Sequence[Inbound]], None]
) -> None:
    ingest = desk.workshop.engine.ingest

    def slow(messages: Sequence[Inbound]) -> None:
        before(messages)
        ingest(messages)

    monkeypatch.setattr(desk.workshop.engine, "ingest", slow)


def test_messages_and_commands_reach_the_engine(desk: Desk, bundle: Bundle) -> None:
    desk.runner.start()
    assert desk.runner.call(lambda engine: engine.register(bundle)) == bundle.task
    desk.post(make_update(bundle, 1).encode())
    eventually(lambda: desk.acknowledged == 1)
    assert desk.workshop.reports.pending(bundle.task) == 1


def test_a_command_s_error_comes_back(desk: Desk) -> None:
    desk.runner.start()

    def fail(_engine: Engine) -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        desk.runner.call(fail)
    assert desk.deaths == []


def test_what_waits_becomes_one_batch(
    desk: Desk, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, sizes = threading.Event(), []

    def before(messages: Sequence[Inbound]) -> None:
        sizes.append(len(messages))
        gate.wait(10.0)

    slow_down(desk, monkeypatch, before)
    desk.runner.start()
    desk.post(b"first")
    eventually(lambda: sizes == [1])
    for _ in range(100):
        desk.post(b"next")
    gate.set()
    eventually(lambda: desk.acknowledged == 101)
    assert sizes == [1, 100]


def test_a_full_mailbox_says_so_and_when_it_has_room(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aggregator.runner.MAILBOX_MESSAGES", 10)
    gate = threading.Event()

    def before(_messages: Sequence[Inbound]) -> None:
        gate.wait(10.0)

    slow_down(desk, monkeypatch, before)
    desk.post(b"x")
    desk.runner.start()
    eventually(lambda: not list(desk.runner._messages))
    for _ in range(10):
        assert desk.runner.has_room
        desk.post(b"x")
    assert not desk.runner.has_room
    assert desk.instruments.registry.get_sample_value("rivulet_mailbox_messages") == 10
    gate.set()
    eventually(lambda: desk.rooms == 1)
    assert desk.runner.has_room


def test_a_refusing_database_holds_the_batch_and_loses_nothing(
    desk: Desk, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aggregator.runner.RETRY_AFTER_S", 0.01)
    take_in, refusing = desk.workshop.ledger.take_in, threading.Event()
    refusing.set()

    def moody(intake: object) -> list[int]:
        if refusing.is_set():
            raise LedgerUnavailableError("the disk is full")
        return take_in(intake)  # type: ignore[arg-type]

    monkeypatch.setattr(desk.workshop.ledger, "take_in", moody)
    desk.runner.start()
    desk.runner.call(lambda engine: engine.register(bundle))
    for number in range(1, 6):
        desk.post(make_update(bundle, number).encode())
    eventually(lambda: desk.runner.problem)
    assert desk.acknowledged == 0
    refusing.clear()
    eventually(lambda: desk.acknowledged == 5)
    eventually(lambda: desk.runner.problem is None)
    assert len(desk.workshop.reports.updates(bundle.task)) == 5


def test_an_engine_that_fails_is_reported_and_runs_no_further(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_messages: Sequence[Inbound]) -> None:
        raise RuntimeError("a bug")

    slow_down(desk, monkeypatch, fail)
    desk.runner.start()
    desk.post(b"x")
    eventually(lambda: desk.deaths)
    assert "a bug" in (desk.runner.problem or "")
    assert desk.acknowledged == 0


def test_a_call_to_a_stopped_engine_times_out(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aggregator.runner.CALL_TIMEOUT_S", 0.05)
    desk.runner.start()
    desk.runner.stop()
    with pytest.raises(TimeoutError):
        desk.runner.call(lambda _engine: None)


def test_a_merge_is_made_when_its_time_has_come(tmp_path: Path, bundle: Bundle) -> None:
    rule = Rule(buffer_size=100, max_wait_s=0.05)
    with open_workshop(tmp_path / "timed", rule=rule, clock=RealClock()) as workshop:
        desk = Desk(workshop)
        desk.runner.start()
        desk.runner.call(lambda engine: engine.register(bundle))
        desk.post(make_update(bundle, 1).encode())
        eventually(lambda: workshop.reports.newest_version(bundle.task) == 1)
        desk.runner.stop()
