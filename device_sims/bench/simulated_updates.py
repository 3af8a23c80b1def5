"""Simulated local updates a second: `mf` with d=32 on MovieLens-100K, on one core.

    python -m device_sims.bench.simulated_updates

Three ways take turns with the same devices, so that a busy machine slows all of them: PyTorch,
eager and one device after the other, as a person would write it; the device's program, one after
the other; and many devices in one call, as the simulator does it. Each is timed in processor
seconds from a history to a delta (sampling and training), and then with what comes after it
(error feedback and codec), which is the same code for all.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from threadpoolctl import threadpool_limits

from device_sims.bench.figures import Figure, publish
from device_sims.scenario import Scenario
from device_sims.simulation.fleet_program import FleetProgram
from device_sims.simulation.training import BATCH
from device_sims.simulation.workshop import Prepared, Workshop
from edge_agent.history import History
from edge_agent.local_update import Training, prepare
from edge_agent.runtimes.protocol import Array
from edge_agent.runtimes.trial import open_update
from edge_agent.trainer import Work, pack
from wire.delta import RowBlock
from wire.parameters import map_parameters

if TYPE_CHECKING:
    from export.recommender import Recommender

__all__ = ["figures", "measure"]

DATA = Path(__file__).parents[3] / "shared" / "data" / "ml-100k" / "ratings.dat"
ROUNDS, GOAL = 6, 20.0
DIMENSION = 32
PYTORCH, ALONE, TOGETHER = "PyTorch", "one by one", "together"

Outputs = Mapping[str, Array]
Train = Callable[[Sequence[Training]], list[Outputs]]


def main() -> int:
    """Measure and publish."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA, help="MovieLens-100K, any format")
    data = parser.parse_args().data
    if not data.is_file():
        print(f"skipped: {data} is not there; give DATA=path/to/ml-100k/u.data", file=sys.stderr)
        return 0
    with threadpool_limits(1):
        publish("simulated-updates", figures(measure(data)))
    return 0


def measure(data: Path) -> dict[str, tuple[float, float]]:
    """Processor seconds of an update on each way: to the delta, and to the encoded update."""
    scenario = Scenario.from_dict(
        {
            "task": {"recommender": "mf", "options": {"dimension": DIMENSION}},
            "data": {"dataset": "movielens", "files": [str(data)]},
        },
        name="bench",
    )
    with tempfile.TemporaryDirectory() as folder:
        made = Workshop(Path(folder)).prepare(scenario)
        ways = _ways(made)
        found: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
        users = np.random.default_rng(0).permutation(made.split.user_count)
        for round_ in range(-1, ROUNDS):
            some = np.take(users, range(round_ * BATCH, (round_ + 1) * BATCH), mode="wrap")
            for way, train in ways.items():
                seconds = _timed(made, some.tolist(), train)
                # The first round warms everything up.
                if round_ >= 0:
                    found[way].append(seconds)
    return {
        way: (statistics.median(s for s, _ in times), statistics.median(s for _, s in times))
        for way, times in found.items()
    }


def figures(seconds: Mapping[str, tuple[float, float]]) -> list[Figure]:
    """What was measured, beside the goal."""
    rows = []
    for at, what in enumerate(("sampled and trained", "sampled, trained and encoded")):
        eager, alone, together = (seconds[way][at] for way in (PYTORCH, ALONE, TOGETHER))
        rows.append(
            Figure(
                figure=f"local updates, {what}, on one core",
                value=eager / together,
                unit="times",
                goal=GOAL,
                at_least=True,
                compared_with=f"PyTorch, one by one {1 / eager:,.0f} a second, "
                f"the device's program {1 / alone:,.0f}, many at once {1 / together:,.0f}",
            )
        )
    return rows


def _ways(made: Prepared) -> dict[str, Train]:
    from export import RECOMMENDERS

    manifest, items = made.bundle.manifest, made.split.item_count
    mf = RECOMMENDERS["mf"](items=items, dimension=DIMENSION)
    single = open_update(made.bundle, "onnx")
    if made.kit.fleet is None:
        raise RuntimeError("mf has no fleet program")
    fleet = FleetProgram(manifest, made.kit.fleet)

    def together(trainings: Sequence[Training]) -> list[Outputs]:
        outputs: dict[int, Outputs] = {}
        for group in fleet.groups(trainings):
            outputs |= zip(group, fleet.run([trainings[at] for at in group]), strict=True)
        return [outputs[at] for at in range(len(trainings))]

    return {
        PYTORCH: lambda trainings: [_eager(mf, one.inputs) for one in trainings],
        ALONE: lambda trainings: [single.run(one.inputs) for one in trainings],
        TOGETHER: together,
    }


def _timed(made: Prepared, users: Sequence[int], train: Train) -> tuple[float, float]:
    manifest, bundle = made.bundle.manifest, made.bundle
    base = map_parameters(bundle.path(manifest.file(manifest.initial)))
    private = dict(map_parameters(bundle.path(manifest.file(manifest.private))))
    histories = [
        History(made.split.train.items_of(user), made.split.train.context_of(user))
        for user in users
    ]
    rng = np.random.default_rng(0)
    started = time.process_time()
    trainings = [
        prepare(manifest, base, private, history, manifest.training, rng) for history in histories
    ]
    outputs = train(trainings)
    trained = time.process_time()
    for one, own in zip(trainings, outputs, strict=True):
        # A residual of every row, as devices have after their first updates.
        residual = {spec.name: _residual(one, spec.name) for spec in manifest.federated}
        pack(manifest, Work(training=one, residual=residual, codec=manifest.codec, seed=0), own)
    ended = time.process_time()
    return (trained - started) / len(users), (ended - started) / len(users)


def _residual(training: Training, name: str) -> RowBlock:
    return RowBlock(training.rows, training.start[name] * np.float32(0.01))


def _eager(recommender: "Recommender", inputs: Mapping[str, Any]) -> Outputs:
    """The local update as one would write it in PyTorch, over the rows that the device has."""
    import torch

    from export.recommender import batch_inputs, local_copy, parameter_values

    local = local_copy(recommender, len(inputs["item_rows"]))
    for name, value in parameter_values(local).items():
        value.copy_(torch.from_numpy(np.array(inputs[name])))
    optimizer = torch.optim.SGD(local.parameters(), lr=float(inputs["learning_rate"]))
    batches = [torch.from_numpy(inputs[name]) for name in batch_inputs(local)]
    losses = []
    for weight, *batch in zip(torch.from_numpy(inputs["weight"]), *batches, strict=True):
        loss = (weight * local.loss(*batch)).sum()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        losses.append(loss.item() / float(weight.sum()))
    new = {f"{name}.new": value.numpy() for name, value in parameter_values(local).items()}
    return {**new, "loss": np.array(losses, np.float32)}


if __name__ == "__main__":
    sys.exit(main())
