"""A real agent process: signals at any moment, one per state folder, the service manager."""

import dataclasses
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edge_agent.store import Store
from tests.edge_agent.aggregator_stub import Aggregator, aggregator
from tests.edge_agent.mosquitto import MOSQUITTO, Mosquitto
from tests.edge_agent.running import wait_until
from tests.edge_agent.tiny_task import TRAINING, TinyTask
from wire.messages import Outcome

pytestmark = pytest.mark.skipif(MOSQUITTO is None, reason="needs the mosquitto package")
DEADLINE_S = 20.0
COMMAND = (
    sys.executable,
    "-c",
    "import sys; from edge_agent.command import main; sys.exit(main())",
)
RSS_LIMIT_KB = 80 * 1024
INTERRUPTED_AT_ITS_IMPORTS = """
import os, signal, sys
from edge_agent.__main__ import main

class Finder:
    def find_spec(self, name, path, target=None):
        if name == "edge_agent.service":
            os.kill(os.getpid(), signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)
sys.meta_path.insert(0, Finder())
sys.exit(main())
"""


@pytest.fixture
def stub(tmp_path: Path, task: TinyTask) -> Iterator[Aggregator]:
    with Mosquitto(tmp_path / "broker") as broker, aggregator(task, broker) as running:
        yield running


class Process:
    """``rivulet-agent`` on one state folder."""

    def __init__(self, root: Path, stub: Aggregator, extra: str = "") -> None:
        self.root, self.stub, self.config = root, stub, root / "agent.toml"
        self.config.write_text(
            f'device = "dev-1"\nstate_dir = "{root / "state"}"\naggregator = "{stub.web.url}"\n'
            f'broker = "mqtt://127.0.0.1:{stub.broker.port}"\n{extra}'
        )
        history = root / "history.csv"
        history.write_text("item,time\n" + "".join(f"{item},{item}\n" for item in range(0, 60, 3)))
        self.command("import", str(history)).check_returncode()

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, "--config", str(self.config), *arguments],
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
        )

    def take_part(self) -> subprocess.Popen[str]:
        """A process whose first update has arrived; what was still under way before does not count.

        The broker may hand over the last update of the process before only now.
        """
        online = self.stub.statuses().count("online")
        process = self.run()
        wait_until(lambda: self.stub.statuses().count("online") > online)
        before = len(self.stub.updates)
        wait_until(lambda: len(self.stub.updates) > before)
        return process

    def run(self, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*COMMAND, "--config", str(self.config), "run"],
            env={**os.environ, **environment},
            stderr=subprocess.PIPE,
            text=True,
        )

    def store(self) -> Store:
        return Store(self.root / "state" / "agent.db")


def stop(process: subprocess.Popen[str], number: int = signal.SIGTERM) -> str:
    process.send_signal(number)
    _out, errors = process.communicate(timeout=DEADLINE_S)
    return errors


def test_a_life_of_an_agent(tmp_path: Path, stub: Aggregator) -> None:
    stub.announce(stub.task.announce(0, training=dataclasses.replace(TRAINING, interval_s=0.1)))
    agent = Process(tmp_path, stub)
    process = agent.run()
    wait_until(lambda: len(stub.updates) >= 3)
    status = agent.command("status")
    assert status.returncode == 0
    assert f"task          {stub.task.task} tiny" in status.stdout
    second = agent.command("run")
    assert second.returncode == 1
    assert "another agent is running on" in second.stderr
    errors = stop(process)
    assert process.returncode == 0
    assert "Traceback" not in errors
    wait_until(lambda: stub.statuses()[-1] == "offline")
    assert len(set(stub.sequences())) == len(stub.updates)
    assert agent.command("recommend", "--top", "3").stdout.count("\n") == 3


def test_sigterm_at_any_moment(tmp_path: Path, stub: Aggregator) -> None:
    """Whenever it comes, the exit is clean, and no update is lost or made twice under one name."""
    stub.announce(stub.task.announce(0, training=dataclasses.replace(TRAINING, interval_s=0.0)))
    agent, rng = Process(tmp_path, stub), np.random.default_rng(0)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM, signal.SIGTERM):
        process = agent.take_part()
        before, more = len(stub.updates), int(rng.integers(4))
        wait_until(lambda: len(stub.updates) >= before + more)  # noqa: B023
        errors = stop(process, number)
        assert process.returncode == 0
        assert "Traceback" not in errors
    check_exactly_once(agent, stub)


def test_ctrl_c_before_it_has_begun(tmp_path: Path, stub: Aggregator) -> None:
    """In the half second of imports nothing is there to be stopped: it ends, and says nothing."""
    agent = Process(tmp_path, stub)
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED_AT_ITS_IMPORTS, "--config", str(agent.config), "run"],
        stderr=subprocess.PIPE,
        text=True,
    )
    _out, errors = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, errors) == (130, "")


def test_kill_at_any_moment(tmp_path: Path, stub: Aggregator) -> None:
    stub.announce(stub.task.announce(0, training=dataclasses.replace(TRAINING, interval_s=0.0)))
    agent, rng = Process(tmp_path, stub), np.random.default_rng(1)
    for _ in range(4):
        process = agent.take_part()
        before, more = len(stub.updates), int(rng.integers(6))
        wait_until(lambda: len(stub.updates) >= before + more)  # noqa: B023
        stop(process, signal.SIGKILL)
    check_exactly_once(agent, stub)


def check_exactly_once(agent: Process, stub: Aggregator) -> None:
    """A last process only empties the outbox; then both sides agree on what was made."""
    stub.announce(stub.task.announce(0, paused=True))
    store = agent.store()
    process = agent.run()
    wait_until(lambda: store.waiting().updates == 0)
    stop(process)
    by_sequence = {update.sequence: update for _, update in stub.updates}
    assert all(by_sequence[update.sequence] == update for _, update in stub.updates)
    counters = store.counters()
    assert counters["created"] == len(by_sequence)
    assert counters["accepted"] == len(by_sequence)
    store.close()


def test_sigterm_when_nothing_answers(tmp_path: Path, stub: Aggregator) -> None:
    agent = Process(tmp_path, stub)
    stub.broker.stop()
    process = agent.run()
    wait_until(lambda: "agent.lock" in {path.name for path in (tmp_path / "state").iterdir()})
    assert process.stderr is not None
    assert "nothing listens there" in process.stderr.readline()
    stop(process)
    assert process.returncode == 0


def test_a_second_signal_ends_at_once(tmp_path: Path, stub: Aggregator) -> None:
    """A broker that never takes the farewell would hold the process for two seconds."""
    agent = Process(tmp_path, stub)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        os.environ["RIVULET_AGENT_BROKER"] = f"mqtt://127.0.0.1:{silent.getsockname()[1]}"
        try:
            process = agent.run()
        finally:
            del os.environ["RIVULET_AGENT_BROKER"]
        client, _ = silent.accept()
        with client:
            client.recv(1000)
            client.sendall(bytes([0x20, 3, 0, 0, 0]))
            assert client.recv(1000)
            process.send_signal(signal.SIGINT)
            assert process.stderr is not None
            while "stopping" not in process.stderr.readline():
                pass
            stop(process, signal.SIGINT)
            assert process.returncode == 130


def test_the_service_manager_is_told(tmp_path: Path, stub: Aggregator) -> None:
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(path))
        server.settimeout(DEADLINE_S)
        agent = Process(tmp_path, stub)
        process = agent.run(NOTIFY_SOCKET=str(path), WATCHDOG_USEC="100000")
        heard = [server.recv(100)]
        while b"READY=1" not in heard or heard.count(b"WATCHDOG=1") < 3:
            heard.append(server.recv(100))
        stop(process)
        server.setblocking(False)
        while b"STOPPING=1" not in heard:
            heard.append(server.recv(100))


def test_events_on_the_device_s_own_broker_start_its_training(
    tmp_path: Path, stub: Aggregator
) -> None:
    port = stub.broker.port
    agent = Process(
        tmp_path, stub, f'[local]\nbroker = "mqtt://127.0.0.1:{port}"\ntopic = "home"\n'
    )
    store = agent.store()
    store._database.execute("DELETE FROM interactions")
    store.close()
    stub.announce(stub.task.announce(0))
    process = agent.run()
    wait_until(lambda: stub.statuses() == ["online"])
    stub.watcher.publish("home", b'{"item": 5}', retain=True)
    wait_until(lambda: len(stub.updates) == 1)
    assert stub.updates[0][1].examples == 1
    stop(process)


def test_memory_while_training(tmp_path: Path, stub: Aggregator) -> None:
    stub.outcome = lambda _update: Outcome.ACCEPTED
    stub.announce(stub.task.announce(0, training=dataclasses.replace(TRAINING, interval_s=0.01)))
    agent = Process(tmp_path, stub)
    process = agent.run()
    wait_until(lambda: len(stub.updates) >= 50)
    status = Path(f"/proc/{process.pid}/status").read_text()
    resident_kb = int(status.split("VmRSS:")[1].split()[0])
    stop(process)
    assert resident_kb <= RSS_LIMIT_KB
