"""Interactions from a real local broker."""

import json
import logging
import threading
from pathlib import Path

import pytest

from edge_agent.config import AgentConfig, BrokerConfig, LocalTopicConfig
from edge_agent.local_events import LocalEvents
from edge_agent.state_dir import open_store
from tests.edge_agent.history_task import make_context_task
from tests.edge_agent.mosquitto import MOSQUITTO, Mosquitto
from tests.edge_agent.running import Watcher, running_reactor, wait_until
from tests.edge_agent.tiny_task import ITEMS

pytestmark = pytest.mark.skipif(MOSQUITTO is None, reason="needs the mosquitto package")


def test_events_become_history_and_bad_ones_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    task = make_context_task()
    config = AgentConfig(
        device="dev-1",
        state_dir=tmp_path / "state",
        aggregator="http://localhost:1",
        broker=BrokerConfig(host="localhost", port=1),
    )
    store = open_store(config, create=True)
    store.put("task", task.task)
    store.keep_manifest(task.task, task.raw)
    added: list[int] = []
    with (
        caplog.at_level(logging.WARNING),
        Mosquitto(tmp_path / "broker") as broker,
        Watcher(broker.port) as hub,
        running_reactor() as reactor,
    ):
        local = LocalTopicConfig(
            broker=BrokerConfig(host="127.0.0.1", port=broker.port), topic="home/+/played"
        )
        events = LocalEvents(config, local, reactor=reactor, on_added=lambda: added.append(1))
        hub.publish("home/attic/played", b'{"item": 7}', retain=True)
        events.start()
        wait_until(lambda: events.refused_events == 1)
        hub.publish("home/kitchen/played", json.dumps({"item": 1, "at": 1.5}).encode(), retain=True)
        wait_until(lambda: store.count_interactions() == 1)
        hub.publish("home/hall/played", b'{"item": 1, "at": 1.5}')
        hub.publish("home/hall/played", b"not an event")
        hub.publish("home/hall/played", json.dumps({"item": ITEMS}).encode())
        hub.publish("home/hall/stopped", b'{"item": 9}')
        hub.publish("home/hall/played", b'{"item": 2, "context": {"daytime": 4}}')
        hub.publish("home/hall/played", b'{"item": 2, "context": {"daytime": 3, "room": "x"}}')
        wait_until(lambda: store.count_interactions() == 2)
        history = store.history(task.manifest.context)
        assert history.items.tolist() == [1, 2]
        assert history.context.tolist() == [[0, 0], [0, 3]]
        assert events.refused_events == 4
        assert "daytime has 4 values, 0 to 3" in caplog.text
        assert "daytime is 4" not in caplog.text
        assert f"the catalogue has {ITEMS} items" in caplog.text
        assert "not an event" not in caplog.text
        assert f"item is {ITEMS}" not in caplog.text
        assert len(added) == 2
        closed = threading.Event()
        events.stop(closed.set)
        wait_until(closed.is_set)
    store.close()
