"""What one agent process costs: resident memory while training, and time to the first update.

A real `rivulet-agent run` against a real broker and aggregator, on a catalogue and a history of
MovieLens-100K's size. Prints the figures and writes `runs/bench/agent.json`.
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from device_sims.bench.figures import Figure, publish
from device_sims.brokers import start_broker
from device_sims.processes import ServerProcess
from device_sims.service import USER, AggregatorProcess
from edge_agent.interactions import Interaction
from edge_agent.runtimes.trial import memory_bytes
from edge_agent.store import Store
from export import RECOMMENDERS, build_bundle
from wire.policy import TrainingPolicy

ITEMS, HISTORY, DIMENSION = 1_682, 106, 32
UPDATES = 50
DEADLINE_S = 120.0
AGENT = Path(sys.executable).with_name("rivulet-agent")


def main() -> None:
    """Measure and publish."""
    figures = []
    for recommender in ("mf", "neumf"):
        peak_mb, first_s = _measure(recommender)
        figures += [
            Figure(
                figure=f"{recommender}: agent process, peak while training",
                value=peak_mb,
                unit="MB",
                goal=80,
                at_least=False,
                compared_with=f"after {UPDATES} updates; PyTorch alone takes about 280",
            ),
            Figure(
                figure=f"{recommender}: process start to first local update",
                value=first_s,
                unit="s",
                goal=1,
                at_least=False,
                compared_with="connection, download and bundle included",
            ),
        ]
    publish("agent", figures)


def _measure(recommender: str) -> tuple[float, float]:
    """Peak memory in MB, and seconds to the first update."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        bundle = build_bundle(
            RECOMMENDERS[recommender](items=ITEMS, dimension=DIMENSION),
            out=root / "bundle",
            training=TrainingPolicy(interval_s=0.0),
        )
        users = {USER: "one", "device": "two"}
        with (
            start_broker("auto", root / "broker", users) as broker,
            AggregatorProcess(
                root / "aggregator",
                broker=broker.url,
                bundle=bundle.root,
                password=users[USER],
                settings={},
            ) as aggregator,
        ):
            _fill(root)
            environment = {
                "RIVULET_AGENT_DEVICE": "device",
                "RIVULET_AGENT_STATE_DIR": str(root),
                "RIVULET_AGENT_AGGREGATOR": aggregator.client.url,
                "RIVULET_AGENT_BROKER": broker.url,
                "RIVULET_AGENT_USERNAME": "device",
                "RIVULET_AGENT_PASSWORD": users["device"],
            }
            started = time.monotonic()
            agent = ServerProcess(
                [str(AGENT), "run"],
                directory=root,
                log=root / "agent.log",
                ready=b"",
                environment=environment,
            )
            _wait_for(root, 1)
            first_s = time.monotonic() - started
            _wait_for(root, UPDATES)
            peak_mb = memory_bytes("VmHWM", agent.pid) / 1e6
            agent.stop()
    return peak_mb, first_s


def _fill(root: Path) -> None:
    items = np.random.default_rng(0).permutation(ITEMS)[:HISTORY]
    store = Store(root / "agent.db")
    store.add_interactions([Interaction(int(item), float(at)) for at, item in enumerate(items)])
    store.close()


def _wait_for(root: Path, updates: int) -> None:
    store = Store(root / "agent.db")
    deadline = time.monotonic() + DEADLINE_S
    while store.counters()["created"] < updates:
        if time.monotonic() > deadline:
            raise TimeoutError((root / "agent.log").read_text())
        time.sleep(0.005)
    store.close()


if __name__ == "__main__":
    main()
