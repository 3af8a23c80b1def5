"""Aggregator, broker and agents are killed at random: nothing is lost, nothing doubled.

Everything is real: `rivulet-agent run` and `rivulet-aggregator serve` processes, Mosquitto, SQLite.
"""

import random
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from aggregator.blobs import Blobs
from aggregator.fold import rebuild
from aggregator.ledger import Ledger, open_database
from aggregator.snapshots import load_snapshot
from device_sims.brokers import MosquittoBroker, find_mosquitto
from device_sims.processes import ServerProcess
from device_sims.service import USER, AggregatorProcess
from edge_agent.store import Store
from export import build_mf
from wire.bundle import Bundle
from wire.policy import TrainingPolicy

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_mosquitto() is None, reason="mosquitto is not installed"),
]

ITEMS = 60
AGENTS = [f"agent-{number}" for number in range(4)]
KILLS = 15
DRAIN_S = 150.0
INTERVAL_S = 0.1
AGENT = Path(sys.executable).with_name("rivulet-agent")


class Site:
    """A broker, an aggregator and some agents, each a process that can be killed and started."""

    def __init__(self, root: Path, bundle: Bundle) -> None:
        self.root, self.bundle = root, bundle
        passwords = {name: f"secret-{name}" for name in (USER, *AGENTS)}
        self.broker = MosquittoBroker(root / "broker", passwords)
        self.aggregator = AggregatorProcess(
            root / "aggregator",
            broker=self.broker.url,
            bundle=bundle.root,
            password=passwords[USER],
            settings={"rule.buffer_size": 5, "retention.keep_last": 3},
        )
        self._passwords = passwords
        for number, name in enumerate(AGENTS):
            store = Store(self.database(name))
            store.add_interactions([(item, float(item)) for item in range(number, ITEMS, 5)])
            store.close()
        self.agents = {name: self._start(name) for name in AGENTS}

    def database(self, name: str) -> Path:
        folder = self.root / name
        folder.mkdir(exist_ok=True)
        return folder / "agent.db"

    def kill_something(self, rng: random.Random) -> str:
        """Kill -9 one process, and start it again."""
        victim = rng.choice(["broker", "aggregator", *AGENTS])
        if victim == "broker":
            self.broker.kill()
            self.broker.restart()
        elif victim == "aggregator":
            self.aggregator.kill()
            self.aggregator.restart()
        else:
            self.agents[victim].kill()
            self.agents[victim] = self._start(victim)
        return "agent" if victim in AGENTS else victim

    def created(self) -> dict[str, int]:
        """Updates that each device made, and that are therefore owed to the ledger."""
        return {name: self._ask(name, "created") for name in AGENTS}

    def waiting(self) -> int:
        """Updates that no receipt was seen for."""
        return sum(self._ask(name, None) for name in AGENTS)

    def stop(self) -> None:
        for agent in self.agents.values():
            agent.stop()
        self.aggregator.stop()
        self.broker.stop()

    def _ask(self, name: str, counter: str | None) -> int:
        with sqlite3.connect(f"file:{self.database(name)}?mode=ro", uri=True) as database:
            if counter is None:
                return int(database.execute("SELECT count(*) FROM outbox").fetchone()[0])
            query = "SELECT coalesce(sum(value), 0) FROM counters WHERE name = ?"
            return int(database.execute(query, (counter,)).fetchone()[0])

    def _start(self, name: str) -> ServerProcess:
        config = self.root / name / "agent.toml"
        config.write_text(
            f'device = "{name}"\nstate_dir = "{self.root / name}"\n'
            f'aggregator = "{self.aggregator.client.url}"\nbroker = "{self.broker.url}"\n'
            f'username = "{name}"\n'
        )
        return ServerProcess(
            [str(AGENT), "--config", str(config), "run"],
            directory=self.root,
            log=self.root / name / "agent.log",
            ready=b"",
            environment={"RIVULET_AGENT_PASSWORD": self._passwords[name]},
        )


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return build_mf(
        items=ITEMS,
        dimension=8,
        out=tmp_path_factory.mktemp("bundle") / "bundle",
        training=TrainingPolicy(interval_s=INTERVAL_S),
    )


@pytest.fixture
def site(tmp_path: Path, bundle: Bundle) -> Iterator[Site]:
    site = Site(tmp_path, bundle)
    try:
        yield site
    finally:
        site.stop()


def wait_until(happened: Callable[[], bool], deadline_s: float) -> None:
    deadline = time.monotonic() + deadline_s
    while not happened():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)


def test_kills_at_random_lose_nothing_and_double_nothing(site: Site) -> None:
    rng, task = random.Random(11), site.bundle.task
    wait_until(lambda: min(site.created().values()) > 0, DRAIN_S)
    killed: Counter[str] = Counter()
    for _ in range(KILLS):
        time.sleep(rng.uniform(0.0, 1.0))  # Not waiting for anything: the kill's own randomness.
        killed[site.kill_something(rng)] += 1
    assert set(killed) == {"broker", "aggregator", "agent"}

    url = f"{site.aggregator.client.url}/v1/tasks/{task}"
    assert httpx.patch(url, json={"training": {"interval_s": 1e6}}).is_success
    settled: list[int] = []

    def drained() -> bool:
        settled.append(sum(site.created().values()))
        return site.waiting() == 0 and settled[-10:].count(settled[-1]) == 10

    wait_until(drained, DRAIN_S)
    site.stop()

    database = site.root / "aggregator" / "ledger.db"
    with sqlite3.connect(database) as ledger:
        rows = ledger.execute("SELECT device, sequence, merged_in FROM updates").fetchall()
        versions = ledger.execute("SELECT version, updates FROM versions ORDER BY 1").fetchall()
    accepted = Counter(device for device, _, _ in rows)
    assert dict(accepted) == site.created(), "each update that a device made is in the ledger"
    assert len({(device, sequence) for device, sequence, _ in rows}) == len(rows)
    merged = Counter(version for _, _, version in rows if version is not None)
    assert merged == {version: count for version, count in versions if count}, "each merged once"
    assert [version for version, _ in versions] == list(range(len(versions)))
    assert_model_is_the_fold(site, last=len(versions) - 1)


def assert_model_is_the_fold(site: Site, *, last: int) -> None:
    """The newest snapshot equals a replay from version 0, bit for bit."""
    specs, task = site.bundle.manifest.federated, site.bundle.task
    folder = site.root / "aggregator"
    database = open_database(f"sqlite:///{folder / 'ledger.db'}")
    ledger, blobs = Ledger(database), Blobs(folder / "blobs")
    history = {record.version: record for record in ledger.history(task, last=last)}
    newest = load_snapshot(blobs, history[last].sha256, specs)
    assert newest is not None
    for version, record in history.items():
        if version and blobs.has(record.sha256):
            blobs.path(record.sha256).unlink()
    replayed = rebuild(ledger, blobs, specs, task=task, version=last)
    for name, values in newest.items():
        np.testing.assert_array_equal(replayed.parameters[name], values)
    database.dispose()
