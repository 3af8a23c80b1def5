"""Devices trained together, elsewhere or later learn what each would have learned alone."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.util import find_spec
from itertools import chain
from multiprocessing import active_children
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

import export.training_graph
from device_sims.fleet import FleetError
from device_sims.processes import free_port
from device_sims.scenario import Scenario, ScenarioError
from device_sims.simulation.fleet_program import FleetProgram
from device_sims.simulation.outcome import Outcome
from device_sims.simulation.pools import open_pool
from device_sims.simulation.run import simulate
from device_sims.simulation.training import FEW, BatchTrainer, Result, Worker
from device_sims.simulation.workshop import DEVICES, Prepared, Workshop
from edge_agent.errors import TrainingError
from edge_agent.history import History
from edge_agent.local_update import Training, prepare
from edge_agent.runtimes.trial import open_update
from edge_agent.task import LocalTask
from edge_agent.trainer import Made, Work, do
from export.errors import RecommenderError
from wire.codec import decode_delta
from wire.delta import Delta, add, squared_norm
from wire.parameters import map_parameters

TASKS = {
    # With the interval of `test_worlds`, so that both share a bundle.
    "mf": {"recommender": "mf", "training": {"interval_s": 120.0}},
    "mf, clipped and pulled": {"recommender": "mf", "training": {"clip": 0.05, "proximal": 0.1}},
    # Not Adam, which divides by the size of a gradient, and may so make much of a last bit.
    "neumf, momentum": {
        "recommender": "neumf",
        "optimizer": "momentum",
        "training": {"learning_rate": 0.002},
    },
    "sasrec": {"recommender": "sasrec"},
}
TOLERANCE = 1e-6

needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")
ELSEWHERE = [{"processes": 2}, pytest.param({"ray": "local"}, marks=needs_ray)]


@pytest.fixture(scope="module")
def prepared(workshop: Workshop) -> Callable[[str], Prepared]:
    return lambda task: workshop.prepare(scenario(TASKS[task]))


def scenario(task: object) -> Scenario:
    document = {"task": task, "data": {"users": 20}, "run": {"hours": 0.1}}
    return Scenario.from_dict(document, name="training")


def draw(made: Prepared, count: int, seed: int = 0) -> list[Training]:
    """Trainings of histories of very different lengths."""
    rng, manifest = np.random.default_rng(seed), made.bundle.manifest
    base = map_parameters(made.bundle.path(manifest.file(manifest.initial)))
    trainings = []
    for _ in range(count):
        items = rng.choice(manifest.items, rng.integers(2, 70), replace=False)
        history = History(items, np.zeros((len(items), len(manifest.context)), np.int64))
        private = {
            spec.name: rng.normal(0.0, 0.1, spec.shape).astype(np.float32)
            for spec in manifest.private_parameters
        }
        trainings.append(prepare(manifest, base, private, history, manifest.training, rng))
    return trainings


def works(made: Prepared, count: int, seed: int = 0) -> list[Work]:
    codec, rng = made.bundle.manifest.codec, np.random.default_rng(seed)
    trainings = draw(made, count, seed)
    return [
        Work(training=one, residual={}, codec=codec, seed=int(rng.integers(99)))
        for one in trainings
    ]


@pytest.mark.parametrize(
    "task", [pytest.param(task, marks=[] if task == "mf" else pytest.mark.slow) for task in TASKS]
)
def test_each_learns_together_what_it_would_learn_alone(
    prepared: Callable[[str], Prepared], task: str
) -> None:
    made = prepared(task)
    assert made.kit.fleet is not None
    manifest, trainings = made.bundle.manifest, draw(made, 45)
    fleet, single = FleetProgram(manifest, made.kit.fleet), open_update(made.bundle, "onnx")
    federated = [spec.name for spec in manifest.federated]
    seen: list[int] = []
    for group in fleet.groups(trainings):
        seen += group
        outputs = fleet.run([trainings[at] for at in group])
        for at, own in zip(group, outputs, strict=True):
            inputs: dict[str, Any] = trainings[at].inputs
            alone: dict[str, Any] = single.run(inputs)
            assert own.keys() == alone.keys()
            for name, value in alone.items():
                assert own[name].dtype == value.dtype
                np.testing.assert_allclose(np.asarray(own[name]), value, rtol=0.0, atol=TOLERANCE)
            moved = (np.abs(alone[f"{n}.new"] - inputs[n]).max() for n in federated)
            assert max(moved) > 100 * TOLERANCE
    assert sorted(seen) == list(range(45))


def test_who_is_beside_a_device_changes_no_bit(prepared: Callable[[str], Prepared]) -> None:
    made = prepared("mf")
    assert made.kit.fleet is not None
    fleet, trainings = FleetProgram(made.bundle.manifest, made.kit.fleet), draw(made, 24)
    (first, *_), others = fleet.run(trainings[:DEVICES]), trainings[DEVICES : 2 * DEVICES - 1]
    for beside in ([], others, others[:3]):
        *_, again = fleet.run([*beside, trainings[0]])
        for name, value in first.items():
            assert np.array_equal(again[name], value), name


@pytest.mark.parametrize("count", [1, DEVICES // FEW, 40])
def test_a_worker_makes_of_a_batch_what_devices_make(
    prepared: Callable[[str], Prepared], count: int
) -> None:
    made = prepared("mf")
    manifest, batch = made.bundle.manifest, works(made, count)
    single = open_update(made.bundle, "onnx")
    for work, result in zip(batch, Worker(made.kit).do(batch), strict=True):
        alone = do(manifest, work, single)
        assert isinstance(result, Made)
        assert result.examples == alone.examples
        assert result.train_loss == pytest.approx(alone.train_loss, abs=TOLERANCE)
        for name, value in alone.private.items():
            np.testing.assert_allclose(result.private[name], value, rtol=0.0, atol=TOLERANCE)
        apart = add(learned(made, result), learned(made, alone), -1.0)
        assert squared_norm(apart) <= (TOLERANCE * len(work.training.rows)) ** 2


def broken(work: Work) -> Work:
    start = {name: value * np.float32(np.nan) for name, value in work.training.start.items()}
    return replace(work, training=replace(work.training, start=start))


def learned(made: Prepared, result: Made) -> Delta:
    """What is sent, and what is left for later."""
    decoded = decode_delta(result.payload, made.bundle.manifest.federated)
    return add(decoded, result.residual)


def test_what_one_device_fails_at_is_its_own(prepared: Callable[[str], Prepared]) -> None:
    made = prepared("mf")
    batch = works(made, 16)
    batch[3] = broken(batch[3])
    results = Worker(made.kit).do(batch)
    assert isinstance(results[3], TrainingError)
    assert [isinstance(result, Made) for result in results].count(True) == 15


def test_without_a_fleet_program_or_with_larger_steps_they_train_alone(
    prepared: Callable[[str], Prepared],
) -> None:
    made = prepared("mf")
    manifest, single = made.bundle.manifest, open_update(made.bundle, "onnx")
    large = replace(manifest.training, batch_size=300)
    wide = replace(made.bundle, manifest=replace(manifest, training=large))
    for kit, batch in (
        (replace(made.kit, fleet=None), works(made, 6)),
        (made.kit, works(replace(made, bundle=wide), 6)),
    ):
        for work, result in zip(batch, Worker(kit).do(batch), strict=True):
            assert isinstance(result, Made)
            assert result.payload == do(manifest, work, single).payload


class FakePool:
    def __init__(self) -> None:
        self.batches: list[Sequence[Work]] = []

    def submit(self, batch: Sequence[Work]) -> Callable[[], list[Result]]:
        self.batches.append(batch)
        return lambda: [TrainingError(str(work.seed)) for work in batch]

    def close(self) -> None:
        """Nothing is held."""


def test_a_batch_goes_when_it_is_full_or_when_its_first_result_is_needed(
    prepared: Callable[[str], Prepared],
) -> None:
    made, pool = prepared("mf"), FakePool()
    trainer, task = BatchTrainer(pool, batch=3), cast(LocalTask, None)
    results = [trainer.start(task, replace(w, seed=n)) for n, w in enumerate(works(made, 5))]
    assert [len(batch) for batch in pool.batches] == [3]
    for number in (4, 0, 3, 1, 2):
        with pytest.raises(TrainingError, match=f"^{number}$"):
            results[number]()
    assert [len(batch) for batch in pool.batches] == [3, 2]


# On Ray a whole simulation has the same digest, below; a cluster takes long to start.
@pytest.mark.parametrize("elsewhere", ELSEWHERE[:1], ids=str)
def test_results_are_the_same_bits_wherever_they_are_made(
    prepared: Callable[[str], Prepared], elsewhere: dict[str, Any]
) -> None:
    made = prepared("mf")
    batches = [works(made, 40, seed) for seed in range(3)]
    batches[1][0] = broken(batches[1][0])
    with open_pool(made.kit) as here, open_pool(made.kit, **elsewhere) as there:
        expected = [here.submit(batch)() for batch in batches]
        waiting = [there.submit(batch) for batch in batches]
        found = [wait() for wait in reversed(waiting)][::-1]
    for one, other in zip(chain(*expected), chain(*found), strict=True):
        same(one, other)


def same(one: Result, other: Result) -> None:
    assert type(one) is type(other)
    if isinstance(one, Made) and isinstance(other, Made):
        assert one.payload == other.payload
        assert one.train_loss == other.train_loss
        assert squared_norm(add(one.residual, other.residual, -1.0)) == 0.0
        assert all(np.array_equal(v, other.private[n]) for n, v in one.private.items())
    else:
        assert str(one) == str(other)


@pytest.mark.parametrize("elsewhere", ELSEWHERE, ids=str)
def test_a_simulation_has_the_same_digest_wherever_its_devices_train(
    tmp_path: Path, prepared: Callable[[str], Prepared], elsewhere: dict[str, Any]
) -> None:
    made, outcomes = prepared("mf"), list[Outcome]()
    for where in ({}, elsewhere):
        folder = tmp_path / str(len(outcomes))
        folder.mkdir()
        with open_pool(made.kit, **where) as pool:
            outcomes.append(
                simulate(
                    scenario(TASKS["mf"]),
                    made.bundle,
                    made.split,
                    folder,
                    trainer=BatchTrainer(pool),
                )
            )
    assert outcomes[0].audit.created > 10
    assert outcomes[0].to_dict() == outcomes[1].to_dict()


def test_what_cannot_train_many_at_once_trains_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    compile_one = export.training_graph.training_program

    def refuse(*arguments: Any) -> object:
        if len(arguments) > 2:
            raise RecommenderError("it cannot be spread")
        return compile_one(*arguments)

    monkeypatch.setattr(export.training_graph, "training_program", refuse)
    assert Workshop(tmp_path).prepare(scenario(TASKS["mf"])).kit.fleet is None
    assert "one by one: it cannot be spread" in caplog.text


def test_where_ray_is_not_installed_the_extra_is_named(
    prepared: Callable[[str], Prepared], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with (
        pytest.raises(ScenarioError, match=r"pip install 'rivulet\[ray\]'"),
        open_pool(prepared("mf").kit, ray="local"),
    ):
        pass


@needs_ray
@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_a_cluster_that_is_not_there_is_named_at_once(
    prepared: Callable[[str], Prepared], scheme: str
) -> None:
    address = f"{scheme}127.0.0.1:{free_port()}"
    with (
        pytest.raises(ScenarioError, match=f"no Ray cluster at '{address}': nobody listens there"),
        open_pool(prepared("mf").kit, ray=address),
    ):
        pass


def test_a_process_that_is_killed_ends_the_run_with_a_sentence(
    tmp_path: Path, prepared: Callable[[str], Prepared]
) -> None:
    made = prepared("mf")

    def kill(_share: float, updates: int) -> None:
        if updates:
            for child in active_children():
                child.kill()

    with (
        open_pool(made.kit, processes=2) as pool,
        pytest.raises(FleetError, match=r"that trains devices has ended: killed, .* run it again"),
    ):
        simulate(
            scenario(TASKS["mf"]),
            made.bundle,
            made.split,
            tmp_path,
            trainer=BatchTrainer(pool),
            progress=kill,
        )
