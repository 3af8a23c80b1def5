"""Flower's simulation of our task, as its documentation would have one write it.

    python simulation.py FOLDER --clients 80 --rounds 6 --processors 2

It runs in an environment of its own (requirements.txt beside it) and knows nothing of Rivulet.
Clients are as in ``client.py``. The server averages the tables with equal weight (``FedAvg``), and
nothing is evaluated. Prints one line of JSON: seconds until the first round is done, in which
actors start, and the seconds of each round after it.
"""

import argparse
import json
import os
import time
from itertools import pairwise
from pathlib import Path

from client import TASK, MatrixFactorisation, histories, task
from client import app as client_app
from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation


class Timed(FedAvg):
    """``FedAvg`` that notes when each round is done, and how many clients answered."""

    def __init__(self, clients: int, of: int) -> None:
        super().__init__(
            fraction_train=clients / of,
            fraction_evaluate=0.0,
            min_train_nodes=clients,
            min_available_nodes=of,
        )
        self.done: list[float] = []
        self.answers: list[int] = []

    def aggregate_train(self, server_round, replies):
        """See ``FedAvg``."""
        replies = list(replies)
        self.answers.append(sum(not reply.has_error() for reply in replies))
        aggregated = super().aggregate_train(server_round, replies)
        self.done.append(time.monotonic())
        return aggregated


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", help="with task.json and histories.npz")
    parser.add_argument("--clients", type=int, default=80, help="in a round")
    parser.add_argument("--rounds", type=int, default=6, help="the first is not counted")
    parser.add_argument("--processors", type=int, default=2, help="one client at a time on each")
    given = parser.parse_args()
    os.environ[TASK] = given.folder
    os.environ["PYTHONPATH"] = str(Path(__file__).resolve().parent)
    options, started = task(), time.monotonic()
    strategy = Timed(given.clients, len(histories()))
    server_app = ServerApp()

    @server_app.main()
    def serve(grid: Grid, _context: Context) -> None:
        table = MatrixFactorisation(options["items"], options["dimension"]).items.weight.detach()
        strategy.start(grid, ArrayRecord({"table": table}), num_rounds=given.rounds)

    run_simulation(
        server_app,
        client_app,
        num_supernodes=len(histories()),
        backend_config={
            "init_args": {"num_cpus": given.processors},
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
        },
    )
    rounds = [after - before for before, after in pairwise(strategy.done)]
    found = {"start_s": strategy.done[0] - started, "rounds_s": rounds, "answers": strategy.answers}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
