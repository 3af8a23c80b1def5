"""Kill -9 of aggregator, broker and agents at random in a run, and what it cost.

Everything is real: `rivulet-agent run` and `rivulet-aggregator serve` processes, Mosquitto, SQLite.
Run as a module it prints the counts and writes `runs/bench/kills.json`.
"""

import json
import random
import sqlite3
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from aggregator.blobs import FolderBlobs
from device_sims.bench.audit import Audit, audit
from device_sims.bench.figures import Figure, publish
from device_sims.brokers import MosquittoBroker
from device_sims.processes import ServerProcess
from device_sims.service import USER, AggregatorProcess
from edge_agent.interactions import Interaction
from edge_agent.store import Store
from export import RECOMMENDERS, build_bundle
from wire.bundle import Bundle
from wire.policy import TrainingPolicy

__all__ = ["Outcome", "run_with_kills"]

ITEMS = 60
AGENTS = tuple(f"agent-{number}" for number in range(4))
KILLS = 15
LONGEST_PAUSE_S = 1.0
INTERVAL_S = 0.1
DRAIN_S = 150.0
POLL_S = 0.1
STILL_POLLS = 10
AGENT = Path(sys.executable).with_name("rivulet-agent")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a run with kills left behind.

    Attributes:
        killed: kills by kind: ``broker``, ``aggregator``, ``agent``.
        created: updates that the devices made.
        found: what the ledger says, against these.
    """

    killed: Mapping[str, int]
    created: int
    found: Audit


def run_with_kills(root: Path, *, seed: int, kills: int = KILLS) -> Outcome:
    """Train, kill, let everything settle, stop, and count.

    Args:
        root: an empty folder.
        seed: of who is killed and when.
        kills: how many.

    Raises:
        TimeoutError: the devices' outboxes did not empty.
    """
    rng = random.Random(seed)
    bundle = build_bundle(
        RECOMMENDERS["mf"](items=ITEMS, dimension=8),
        out=root / "bundle",
        training=TrainingPolicy(interval_s=INTERVAL_S),
    )
    site = _Site(root, bundle)
    try:
        _wait_until(lambda: min(site.created().values()) > 0)
        killed: Counter[str] = Counter()
        for _ in range(kills):
            time.sleep(rng.uniform(0.0, LONGEST_PAUSE_S))
            killed[site.kill_something(rng)] += 1
        site.stop_training()
        _wait_until(site.is_settled)
    finally:
        site.stop()
    return _count(site, killed)


class _Site:
    """A broker, an aggregator and some agents, each a process that can be killed and started."""

    def __init__(self, root: Path, bundle: Bundle) -> None:
        self.root, self.bundle = root, bundle
        self._passwords = {name: f"secret-{name}" for name in (USER, *AGENTS)}
        self.broker = MosquittoBroker(root / "broker", self._passwords)
        self.aggregator = AggregatorProcess(
            root / "aggregator",
            broker=self.broker.url,
            bundle=bundle.root,
            password=self._passwords[USER],
            settings={"rule.buffer_size": 5, "retention.snapshot_every": 25},
        )
        for number, name in enumerate(AGENTS):
            (root / name).mkdir()
            store = Store(self._database(name))
            store.add_interactions([Interaction(i, float(i)) for i in range(number, ITEMS, 5)])
            store.close()
        self._agents = {name: self._start(name) for name in AGENTS}
        self._seen: list[int] = []

    def kill_something(self, rng: random.Random) -> str:
        """Kill -9 one process and start it again; returns its kind."""
        victim = rng.choice(("broker", "aggregator", *AGENTS))
        if victim == "broker":
            self.broker.kill()
            self.broker.restart()
        elif victim == "aggregator":
            self.aggregator.kill()
            self.aggregator.restart()
        else:
            self._agents[victim].kill()
            self._agents[victim] = self._start(victim)
        return victim.partition("-")[0]

    def stop_training(self) -> None:
        """Steer the task so that no device begins another update."""
        request = urllib.request.Request(
            f"{self.aggregator.client.url}/v1/tasks/{self.bundle.task}",
            data=json.dumps({"training": {"interval_s": 1e6}}).encode(),
            headers={"Content-Type": "application/json"},
            method="PATCH",
        )
        urllib.request.urlopen(request, timeout=30.0).close()

    def created(self) -> dict[str, int]:
        """Updates that each device made, and that are therefore owed to the ledger."""
        query = "SELECT coalesce(sum(value), 0) FROM counters WHERE name = 'created'"
        return {name: self._ask(name, query) for name in AGENTS}

    def is_settled(self) -> bool:
        """Whether no update waits for a receipt, and none was made for a while."""
        self._seen.append(sum(self.created().values()))
        still = self._seen[-STILL_POLLS:]
        waiting = sum(self._ask(name, "SELECT count(*) FROM outbox") for name in AGENTS)
        return waiting == 0 and len(still) == STILL_POLLS and len(set(still)) == 1

    def stop(self) -> None:
        """Stop everything cleanly."""
        for agent in self._agents.values():
            agent.stop()
        self.aggregator.stop()
        self.broker.stop()

    def _database(self, name: str) -> Path:
        return self.root / name / "agent.db"

    def _ask(self, name: str, query: str) -> int:
        with sqlite3.connect(f"file:{self._database(name)}?mode=ro", uri=True) as database:
            return int(database.execute(query).fetchone()[0])

    def _start(self, name: str) -> ServerProcess:
        config = self.root / name / "agent.toml"
        config.write_text(
            f'device = "{name}"\nstate_dir = "{self.root / name}"\nusername = "{name}"\n'
            f'aggregator = "{self.aggregator.client.url}"\nbroker = "{self.broker.url}"\n'
        )
        return ServerProcess(
            [str(AGENT), "--config", str(config), "run"],
            directory=self.root,
            log=self.root / name / "agent.log",
            ready=b"",
            environment={"RIVULET_AGENT_PASSWORD": self._passwords[name]},
        )


def _wait_until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DRAIN_S
    while not happened():
        if time.monotonic() > deadline:
            raise TimeoutError("the devices' outboxes did not empty in time")
        time.sleep(POLL_S)


def _count(site: _Site, killed: Mapping[str, int]) -> Outcome:
    folder, created = site.root / "aggregator", site.created()
    return Outcome(
        killed=dict(killed),
        created=sum(created.values()),
        found=audit(
            f"sqlite:///{folder / 'ledger.db'}", FolderBlobs(folder / "blobs"), site.bundle, created
        ),
    )


def _main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        outcome = run_with_kills(Path(folder), seed=int(time.time()))
    found = outcome.found
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(outcome.killed.items()))
    compared = f"{found.accepted:,} accepted; kill -9: {kinds}"
    counts = {
        "accepted updates lost": found.lost,
        "updates applied twice": found.doubled,
        "models that differ from the fold": int(not found.model_is_the_fold),
    }
    publish(
        "kills",
        [
            Figure(
                figure=name,
                value=value,
                unit="",
                goal=0,
                at_least=False,
                compared_with=compared,
            )
            for name, value in counts.items()
        ],
    )


if __name__ == "__main__":
    _main()
