"""Client updates a second: our simulator and Flower's on the same task, one after the other.

    python -m device_sims.bench.flower.comparison --flower .venv-flower/bin/python

The task is matrix factorisation with d=32 on MovieLens-100K, one user a client, the item table
federated and the user's vector kept by the client, our preset's batches and rates. Both train
synchronous rounds of as many clients and average them. Flower hands the whole float32 table over in
memory and keeps no ledger; with ours each update goes through the codec with its error feedback,
through admission and a durable ledger. The server's model is not evaluated on either side, and our
audit of what messages hold is off. Starting is not counted: on Flower's side that is its first
round, on ours building the programs.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from device_sims.bench.figures import Figure, publish
from device_sims.datasets import Split
from device_sims.scenario import Scenario
from device_sims.simulation.workshop import Workshop

__all__ = ["figures", "measure", "write_task"]

DATA = Path(__file__).parents[4] / "shared" / "data" / "ml-100k" / "ratings.dat"
SCRIPT = Path(__file__).with_name("simulation.py")
GOAL, PROCESSORS = 20.0, 2
"""That Flower has. Ours trains in one process, with which it is fastest on two cores."""
CLIENTS, ROUNDS = 80, 6
OPTIONS = {"dimension": 32, "l2": 0.01}


def main() -> int:
    """Measure and publish."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA, help="MovieLens-100K, any format")
    parser.add_argument(
        "--flower",
        type=Path,
        default=Path(".venv-flower/bin/python"),
        help="Python of the environment with Flower",
    )
    given = parser.parse_args()
    if not given.data.is_file():
        print(f"skipped: {given.data} is not there; give DATA=path/to/u.data", file=sys.stderr)
        return 0
    publish("flower", measure(given.flower.absolute(), given.data))
    return 0


def measure(flower: Path, data: Path) -> list[Figure]:
    """Run both.

    Args:
        flower: Python of an environment with flower/requirements.txt.
        data: MovieLens-100K.
    """
    scenario = Scenario.from_dict(
        {
            "task": {"recommender": "mf", "options": OPTIONS, "training": {"interval_s": 60.0}},
            "data": {"dataset": "movielens", "files": [str(data)]},
            "fleet": {"update_sigma": 0.0, "offline_s": 0.0},
            "selection": {"places": CLIENTS, "rounds": True},
            "aggregation": {"kind": "fedavg", "buffer_size": CLIENTS},
            # A round's updates arrive about at once, and are taken in together.
            "service": {"together_s": 2.0},
            "run": {
                "hours": 0.25,
                "evaluate_every_h": 0.0,
                "evaluate_users": 1,
                "checks": False,
                "holdout": False,
            },
        },
        name="against Flower",
    )
    with tempfile.TemporaryDirectory() as folder:
        workshop = Workshop(Path(folder) / "ours")
        made = workshop.prepare(scenario)
        write_task(Path(folder), scenario, made.split)
        theirs = _flower(flower, Path(folder))
        started = time.monotonic()
        updates = workshop.run(scenario).audit.created
        return figures(updates / (time.monotonic() - started), updates, theirs)


def write_task(folder: Path, scenario: Scenario, split: Split) -> None:
    """What Flower's side reads: the options, and the items of each user."""
    training = scenario.model.training
    options = {
        "items": split.item_count,
        **OPTIONS,
        "learning_rate": training.learning_rate,
        "batch_size": training.batch_size,
        "epochs": training.epochs,
        "negatives": training.negatives,
    }
    (folder / "task.json").write_text(json.dumps(options))
    np.savez(folder / "histories.npz", items=split.train.items, starts=split.train.starts)


def figures(ours: float, updates: int, theirs: Mapping[str, Any]) -> list[Figure]:
    """The ratio, beside its goal.

    Args:
        ours: updates a second.
        updates: that we made.
        theirs: what Flower's side printed.
    """
    rounds: Sequence[float] = theirs["rounds_s"]
    answers = theirs["answers"][1:]
    rate = sum(answers) / sum(rounds)
    return [
        Figure(
            figure="client updates a second, against Flower's simulation",
            value=ours / rate,
            unit="times",
            goal=GOAL,
            at_least=True,
            compared_with=f"{ours:,.0f} in {updates:,} updates; Flower {rate:,.1f} in "
            f"{sum(answers):,}, {statistics.median(rounds):.1f} s a round, "
            f"{theirs['start_s']:.0f} s to the end of the first",
        )
    ]


def _flower(python: Path, folder: Path) -> Mapping[str, Any]:
    if not python.is_file():
        raise SystemExit(f"{python} is not there; `make bench-fleet` installs Flower")
    command = [python, SCRIPT, folder, "--clients", str(CLIENTS), "--rounds", str(ROUNDS)]
    ended = subprocess.run(
        [*map(str, command), "--processors", str(PROCESSORS)], capture_output=True, text=True
    )
    if ended.returncode:
        raise SystemExit(f"Flower's simulation failed:\n{ended.stderr[-2_000:]}")
    found: Mapping[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    sys.exit(main())
