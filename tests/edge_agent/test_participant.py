"""Whole agents on a real broker and a real HTTP server."""

import dataclasses
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import edge_agent.connection
import edge_agent.outbox
import edge_agent.participant
from edge_agent.agent import Agent, Sent
from edge_agent.base import Base
from edge_agent.config import AgentConfig, BrokerConfig
from edge_agent.interactions import Interaction
from edge_agent.participant import Participant
from edge_agent.reactor import Reactor
from edge_agent.workers import Workers
from tests.edge_agent.aggregator_stub import Aggregator, aggregator
from tests.edge_agent.mosquitto import MOSQUITTO, Mosquitto
from tests.edge_agent.running import DEADLINE_S, running_reactor, wait_until
from tests.edge_agent.tiny_task import TRAINING, TinyTask
from wire.messages import Announcement, Outcome

pytestmark = pytest.mark.skipif(MOSQUITTO is None, reason="needs the mosquitto package")
FAST = dataclasses.replace(TRAINING, interval_s=0.05)
SLOW = dataclasses.replace(TRAINING, interval_s=1e6)
HISTORY = [Interaction(item, float(at)) for at, item in enumerate((3, 14, 15, 9, 26, 5))]


@pytest.fixture
def broker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mosquitto]:
    monkeypatch.setattr(edge_agent.connection, "FIRST_RECONNECT_S", 0.02)
    monkeypatch.setattr(edge_agent.connection, "LONGEST_RECONNECT_S", 0.1)
    monkeypatch.setattr(edge_agent.outbox, "RECONNECT_SPREAD_S", 0.05)
    with Mosquitto(tmp_path / "broker") as running:
        yield running


@pytest.fixture
def stub(task: TinyTask, broker: Mosquitto) -> Iterator[Aggregator]:
    with aggregator(task, broker) as running:
        yield running


class Devices:
    """Participants that share a reactor and workers, and are stopped in the end."""

    def __init__(self, root: Path, stub: Aggregator, reactor: Reactor, workers: Workers) -> None:
        self._root, self._stub, self._reactor, self._workers = root, stub, reactor, workers
        self._running: list[Participant] = []

    def start(
        self, name: str = "dev-1", *, automatic: bool = True, **options: object
    ) -> Participant:
        config = AgentConfig(
            device=name,
            state_dir=self._root / name,
            aggregator=self._stub.web.url,
            broker=BrokerConfig(host="127.0.0.1", port=self._stub.broker.port),
            durability="normal",
        )
        device = Participant(
            config,
            reactor=self._reactor,
            workers=self._workers,
            automatic=automatic,
            **options,  # type: ignore[arg-type]
        )
        device.agent.store.add_interactions(HISTORY)
        self._running.append(device)
        device.start()
        return device

    def forget(self, device: Participant) -> None:
        self._running.remove(device)

    def stop(self) -> None:
        closed = threading.Semaphore(0)
        for device in self._running:
            device.stop(closed.release)
        for _ in self._running:
            assert closed.acquire(timeout=DEADLINE_S)
        self._running.clear()


@pytest.fixture
def devices(tmp_path: Path, stub: Aggregator) -> Iterator[Devices]:
    with running_reactor() as reactor:
        workers = Workers(2)
        fleet = Devices(tmp_path, stub, reactor, workers)
        yield fleet
        fleet.stop()
        assert workers.stop(DEADLINE_S)


def waiting(device: Participant) -> int:
    return device.agent.outbox.waiting.updates


def test_a_device_trains_by_itself_and_says_hello_and_goodbye(
    stub: Aggregator, devices: Devices
) -> None:
    device = devices.start()
    stub.announce(stub.task.announce(0, training=FAST))
    wait_until(lambda: len(stub.updates) >= 5)
    assert stub.statuses() == ["online"]
    assert len(set(stub.sequences())) == len(stub.updates)
    stub.announce(stub.task.announce(1, paused=True))
    wait_until(lambda: waiting(device) == 0)
    devices.stop()
    wait_until(lambda: stub.statuses() == ["online", "offline"])


def test_many_devices_share_a_reactor(stub: Aggregator, devices: Devices) -> None:
    names = [f"dev-{number}" for number in range(25)]
    for name in names:
        devices.start(name)
    stub.announce(stub.task.announce(0, training=SLOW))
    wait_until(lambda: len(stub.updates) == len(names))
    assert {device for device, _ in stub.updates} == set(names)


def test_updates_on_request_with_a_delay_and_their_end(stub: Aggregator, devices: Devices) -> None:
    settled, done, sent = threading.Event(), [], []  # type: ignore[var-annotated]
    device = devices.start(automatic=False, on_settled=settled.set, on_sent=sent.append)
    device.request_update(done=done.append)
    wait_until(lambda: done == [None])
    stub.announce(stub.task.announce(3, training=SLOW))
    wait_until(lambda: stub.statuses() == ["online"])

    def try_until_announced() -> bool:
        before = len(done)
        device.request_update(
            delay_s=lambda base: base.announcement.version / 100, done=done.append
        )
        wait_until(lambda: len(done) > before)
        return done[-1] is not None

    wait_until(try_until_announced)
    assert isinstance(done[-1], Sent)
    assert sent == [done[-1]]
    assert done[-1].base_version == 3
    assert settled.wait(DEADLINE_S)
    assert stub.sequences() == [done[-1].sequence]
    assert stub.updates[0][1].payload
    assert waiting(device) == 0


def test_what_the_broker_lost_is_sent_again(
    stub: Aggregator, devices: Devices, broker: Mosquitto, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broker without persistence forgets everything; the aggregator was not even there."""
    monkeypatch.setattr(edge_agent.outbox, "RECEIPT_WAIT_S", 0.2)
    stub.outcome = lambda _update: None
    device = devices.start()
    stub.announce(stub.task.announce(0, training=SLOW))
    wait_until(lambda: len(stub.updates) == 1)
    broker.stop()
    broker.start()
    stub.outcome = lambda _update: Outcome.ACCEPTED
    wait_until(lambda: waiting(device) == 0)
    assert len(set(stub.sequences())) == 1
    assert device.agent.store.counters()["accepted"] == 1


def test_the_model_server_may_be_away(stub: Aggregator, devices: Devices) -> None:
    device = devices.start(automatic=False)
    stub.announce(stub.task.announce(0, training=SLOW))
    stub.web.resources.clear()
    results: list[Sent | None] = []

    def ask() -> bool:
        before = len(results)
        device.request_update(done=results.append)
        wait_until(lambda: len(results) > before)
        return results[-1] is not None

    wait_until(lambda: not ask() and stub.web.requests)
    assert results[-1] is None
    stub.web.add_task(stub.task)
    wait_until(ask)


def test_work_of_one_device_is_never_done_twice_at_once(stub: Aggregator, devices: Devices) -> None:
    device = devices.start(automatic=False)
    inside, overlaps, count = [0], [0], [0]

    def work(_agent: Agent) -> None:
        inside[0] += 1
        overlaps[0] += inside[0] > 1
        count[0] += 1
        inside[0] -= 1

    for _ in range(500):
        device.post(work)
    wait_until(lambda: count[0] == 500)
    assert overlaps == [0]


def test_planning_again_and_again_keeps_one_alarm(stub: Aggregator, devices: Devices) -> None:
    device = devices.start()
    stub.announce(stub.task.announce(0, training=SLOW))
    wait_until(lambda: len(stub.updates) == 1)
    before = len(device._reactor._timers)
    count = [0]

    def work(_agent: Agent) -> None:
        count[0] += 1

    for _ in range(300):
        device.post(work)
    wait_until(lambda: count[0] == 300)
    assert len(device._reactor._timers) < before + 100


def test_a_restart_of_the_device_goes_on_where_it_was(stub: Aggregator, devices: Devices) -> None:
    stub.outcome = lambda _update: None
    devices.start()
    stub.announce(stub.task.announce(0, training=SLOW))
    wait_until(lambda: len(stub.updates) == 1)
    devices.stop()
    downloads = len(stub.web.requests)
    stub.outcome = lambda _update: Outcome.ACCEPTED
    device = devices.start()
    wait_until(lambda: device.agent.store.counters()["accepted"] == 1)
    assert stub.sequences() == [stub.sequences()[0]] * len(stub.updates)
    assert len(stub.web.requests) == downloads


def test_an_update_takes_as_long_as_the_driver_says_and_the_device_can_be_offline_meanwhile(
    stub: Aggregator, devices: Devices
) -> None:
    asked: list[Base] = []

    def delay_s(base: Base) -> float:
        asked.append(base)
        device.suspend()
        return 0.1

    device: Participant = devices.start(delay_s=delay_s)
    stub.announce(stub.task.announce(0, training=SLOW))
    wait_until(lambda: waiting(device) == 1)
    assert len(asked) == 1
    assert not device.is_connected
    assert stub.updates == []
    device.start()
    wait_until(lambda: len(stub.updates) == 1 and not waiting(device))


def test_a_resting_device_trains_no_more_and_still_sends_what_waits(
    stub: Aggregator, devices: Devices
) -> None:
    def delay_s(_base: Base) -> float:
        device.suspend()
        return 0.0

    device: Participant = devices.start(delay_s=delay_s)
    stub.announce(stub.task.announce(0, training=FAST))
    wait_until(lambda: waiting(device) == 1)
    device.rest()
    device.start()
    wait_until(lambda: len(stub.updates) == 1 and not waiting(device))
    stub.announce(stub.task.announce(1, training=FAST))
    done = threading.Event()
    wait_until(lambda: device.agent.next_due(training=False) is None)
    device.post(lambda _agent: done.set())
    wait_until(done.is_set)
    assert len(stub.updates) == 1


def test_what_a_killed_device_had_written_is_sent_by_its_successor(
    stub: Aggregator, devices: Devices
) -> None:
    stub.outcome = lambda _update: None
    device = devices.start()
    stub.announce(stub.task.announce(0, training=SLOW))
    wait_until(lambda: len(stub.updates) == 1)
    closed = threading.Event()
    device.stop(closed.set, abruptly=True)
    wait_until(closed.is_set)
    devices.forget(device)
    stub.outcome = lambda _update: Outcome.ACCEPTED
    successor = devices.start()
    wait_until(lambda: successor.agent.store.counters()["accepted"] == 1)
    assert set(stub.sequences()) == {stub.sequences()[0]}


def test_a_fault_is_logged_answered_and_survived(
    stub: Aggregator, devices: Devices, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge_agent.participant, "STORE_RETRY_S", 0.05)
    device = devices.start()
    wait_until(lambda: stub.statuses() == ["online"])
    real, faults, answers = device.agent._loader.load, [], []  # type: ignore[var-annotated]

    def broken(_announcement: Announcement) -> Base:
        faults.append(1)
        raise PermissionError(30, "read only")

    monkeypatch.setattr(device.agent._loader, "load", broken)
    stub.announce(stub.task.announce(0, training=SLOW))
    wait_until(lambda: len(faults) >= 2)
    device.request_update(done=answers.append)
    wait_until(lambda: answers == [None])
    monkeypatch.setattr(device.agent._loader, "load", real)
    wait_until(lambda: len(stub.updates) == 1)


def test_one_message_that_fails_does_not_cost_the_others(
    stub: Aggregator, devices: Devices, monkeypatch: pytest.MonkeyPatch
) -> None:
    device, heard = devices.start(automatic=False), []
    wait_until(lambda: stub.statuses() == ["online"])

    def receive(topic: str, _payload: bytes) -> None:
        heard.append(topic)
        if topic == "first":
            raise ValueError(topic)

    monkeypatch.setattr(device.agent, "receive", receive)
    device._reactor.call_soon_threadsafe(lambda: device.message("first", b"", retained=False))
    device._reactor.call_soon_threadsafe(lambda: device.message("second", b"", retained=False))
    wait_until(lambda: heard == ["first", "second"])
