"""The local update against NumPy twins, and its defined results at the edges."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_agent.errors import ProgramError, TrainingError
from edge_agent.history import History, IntArray
from edge_agent.local_update import LocalUpdate, train
from edge_agent.runtimes import Array, Program, open_runtime
from edge_agent.sampling import LocalBatches, draw_batches
from tests.edge_agent.history_task import make_context_task, make_sequence_task
from tests.edge_agent.tiny_task import ITEMS, TRAINING, TinyTask, make_task
from wire.delta import FloatArray, RowBlock
from wire.manifest import Capacity
from wire.policy import TrainingPolicy

ACTIONS = np.array([3, 14, 15, 9, 26, 5, 14], np.int64)
RATE = TRAINING.learning_rate
Twin = Callable[[TinyTask, LocalBatches], dict[str, FloatArray]]


def history_for(task: TinyTask, items: IntArray = ACTIONS) -> History:
    """Each interaction in a context of its own, as far as the fields go."""
    sizes = [field.size for field in task.manifest.context]
    context = [np.arange(len(items)) % size for size in sizes]
    return History(items, np.array(context, np.int64).reshape(len(sizes), len(items)).T)


class Recorder:
    """A real program, of which the inputs are kept."""

    def __init__(self, program: Program, capacity: Capacity | None = None) -> None:
        self._program, self.capacity = program, capacity
        self.inputs: dict[str, Array] = {}

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        self.inputs = dict(inputs)
        return self._program.run(inputs)


@pytest.fixture
def program(tmp_path: Path, task: TinyTask) -> Recorder:
    return program_of(tmp_path, task)


def program_of(root: Path, task: TinyTask, capacity: Capacity | None = None) -> Recorder:
    opened = open_runtime("onnx").open_update(task.manifest, task.write_program(root))
    return Recorder(opened, capacity)


def update(
    task: TinyTask,
    program: Program,
    history: History | None = None,
    policy: TrainingPolicy = TRAINING,
    base: Mapping[str, FloatArray] | None = None,
) -> LocalUpdate:
    return train(
        task.manifest,
        task.parameters() if base is None else base,
        task.private(),
        history_for(task) if history is None else history,
        policy,
        np.random.default_rng(3),
        program,
    )


def batches_of(task: TinyTask) -> LocalBatches:
    """What ``update`` trains on."""
    return draw_batches(task.manifest, history_for(task), TRAINING, np.random.default_rng(3))


def sigmoid(z: FloatArray) -> FloatArray:
    p: FloatArray = (1 / (1 + np.exp(-z))).astype(np.float32)
    return p


def tiny_twin(task: TinyTask, batches: LocalBatches) -> dict[str, FloatArray]:
    """The same steps on the whole tables, as are the other twins."""
    new = {**task.parameters(), **task.private()}
    for item, label, weight in steps(batches, "item", "label", "weight"):
        rows = new["table"][item]
        slope = (sigmoid(rows @ new["user"] + new["bias"]) - label) * weight * RATE
        np.add.at(new["table"], item, -slope[:, None] * new["user"])
        new["user"], new["bias"] = new["user"] - slope @ rows, new["bias"] - slope.sum()
    return new


def context_twin(task: TinyTask, batches: LocalBatches) -> dict[str, FloatArray]:
    new = {**task.parameters(), **task.private()}
    names = ("item", "label", "context", "history", "present", "weight")
    for item, label, context, history, present, weight in steps(batches, *names):
        rows, features = new["table"][item], new["features"]
        pooled = (features[history] * present[..., None]).sum(axis=1)
        score = rows @ new["user"] + new["daytime"][context[:, 1]]
        score = score + new["scale"] * (features[item] * pooled).sum(axis=1)
        slope = (sigmoid(score) - label) * weight * RATE
        np.add.at(new["table"], item, -slope[:, None] * new["user"])
        np.add.at(new["daytime"], context[:, 1], -slope)
        new["user"] = new["user"] - slope @ rows
    return new


def sequence_twin(task: TinyTask, batches: LocalBatches) -> dict[str, FloatArray]:
    new = {**task.parameters(), **task.private()}
    names = ("history", "positive", "negative", "present", "weight")
    for history, positive, negative, present, weight in steps(batches, *names):
        table, state = new["table"].copy(), new["memory"][history] + new["user"]
        for item, sign in ((positive, 1.0), (negative, -1.0)):
            score = (table[item] * state).sum(axis=2)
            rate = present * weight[:, None] * RATE
            push = (sign * sigmoid(-sign * score) * rate)[..., None]
            np.add.at(new["table"], item, push * state)
            new["user"] = new["user"] + (push * table[item]).sum(axis=(0, 1))
    return new


def steps(batches: LocalBatches, *names: str) -> list[tuple[Any, ...]]:
    """The inputs step by step, their positions replaced by item ids."""
    columns = []
    for name in names:
        column = batches.inputs[name]
        positions = column.dtype == np.int64 and name != "context"
        columns.append(batches.rows[column] if positions else column)
    return list(zip(*columns, strict=True))


TWINS = [
    (make_task, tiny_twin),
    (make_context_task, context_twin),
    (make_sequence_task, sequence_twin),
]


@pytest.mark.parametrize(("make", "twin"), TWINS)
def test_delta_and_private_parameters_match_a_numpy_twin(
    tmp_path: Path, make: Callable[[], TinyTask], twin: Twin
) -> None:
    task = make()
    learned, batches = update(task, program_of(tmp_path, task)), batches_of(task)
    expected, start = twin(task, batches), task.parameters()
    rows = learned.delta["table"]
    assert isinstance(rows, RowBlock)
    change = expected["table"] - start["table"]
    assert rows.rows.tolist() == np.flatnonzero(change.any(axis=1)).tolist()
    np.testing.assert_allclose(rows.values, change[rows.rows], atol=1e-6)
    dense = {spec.name for spec in task.manifest.federated} - {"table"}
    assert set(learned.delta) == {"table", *dense}
    for name in dense:
        np.testing.assert_allclose(learned.delta[name], expected[name] - start[name], atol=1e-6)  # type: ignore[arg-type]
    assert set(learned.private) == {"user"}
    np.testing.assert_allclose(learned.private["user"], expected["user"], atol=1e-6)
    assert learned.losses.shape == batches.inputs["weight"].shape[:1]
    assert (learned.examples, learned.samples) == (batches.examples, batches.samples)


@pytest.mark.parametrize(("make", "_twin"), TWINS)
def test_only_the_rows_of_the_batches_are_read(
    tmp_path: Path, make: Callable[[], TinyTask], _twin: Twin
) -> None:
    """Other rows, of frozen tables too, may hold anything: no device looks at a whole table."""
    task = make()
    program, base = program_of(tmp_path, task), task.parameters()
    others = np.setdiff1d(np.arange(ITEMS), batches_of(task).rows)
    assert len(others)
    expected = update(task, program)
    for spec in task.manifest.parameters:
        if spec.is_table:
            base[spec.name][others] = np.nan
    learned = update(task, program, base=base)
    np.testing.assert_equal(learned.private, expected.private)
    np.testing.assert_equal(
        learned.delta["table"].values,  # type: ignore[union-attr]
        expected.delta["table"].values,  # type: ignore[union-attr]
    )


def test_a_program_is_given_frozen_parameters_and_what_steers_it(tmp_path: Path) -> None:
    task = make_context_task()
    program = program_of(tmp_path, task)
    steered = TrainingPolicy.from_dict({**TRAINING.to_dict(), "proximal": 0.25, "clip": 1.5})
    update(task, program, policy=steered)
    given = {name: program.inputs[name] for name in ("learning_rate", "proximal", "clip")}
    assert given == {"learning_rate": np.float32(RATE), "proximal": 0.25, "clip": 1.5}
    assert {(value.dtype, value.shape) for value in given.values()} == {(np.dtype("f4"), ())}
    np.testing.assert_array_equal(program.inputs["scale"], task.start["scale"])
    np.testing.assert_array_equal(
        program.inputs["features"], task.start["features"][batches_of(task).rows]
    )
    update(task, program)
    assert program.inputs["proximal"] == 0.0
    assert program.inputs["clip"] == np.inf


@pytest.mark.parametrize(
    ("make", "items"),
    [(make, ()) for make, _ in TWINS] + [(make_sequence_task, (7,))],
)
def test_no_samples_give_an_empty_delta(
    tmp_path: Path, make: Callable[[], TinyTask], items: tuple[int, ...]
) -> None:
    """An empty history, and a sequence of one action, which nothing can be predicted from."""
    task = make()
    none = history_for(task, np.array(items, np.int64))
    learned = update(task, program_of(tmp_path, task), none)
    assert learned.delta == {}
    np.testing.assert_equal(dict(learned.private), task.private())
    assert (learned.examples, learned.samples, len(learned.losses)) == (0, 0, 0)


def test_one_interaction_and_the_whole_catalogue(task: TinyTask, program: Recorder) -> None:
    assert update(task, program, history_for(task, np.array([7]))).samples == 6
    assert update(task, program, history_for(task, np.arange(ITEMS))).samples == 2 * ITEMS


@pytest.mark.parametrize(("make", "_twin"), TWINS)
def test_a_history_larger_than_the_capacity_is_trained_on_in_part(
    tmp_path: Path, make: Callable[[], TinyTask], _twin: Twin
) -> None:
    task = make()
    program = program_of(tmp_path, task, Capacity(rows=20, batch=3))
    history = history_for(task, np.random.default_rng(0).permutation(ITEMS)[:40])
    learned = update(task, program, history)
    assert 0 < learned.examples < 39
    assert len(program.inputs["table"]) <= 20
    assert program.inputs["weight"].shape[1] == 3
    assert learned.delta["table"].values.any()  # type: ignore[union-attr]


def test_nothing_given_is_changed(task: TinyTask, program: Recorder) -> None:
    base, private = task.parameters(), task.private()
    rng, history = np.random.default_rng(3), history_for(task)
    train(task.manifest, base, private, history, TRAINING, rng, program)
    np.testing.assert_equal(base, task.parameters())
    np.testing.assert_equal(private, task.private())
    np.testing.assert_equal(history.items, ACTIONS)


@pytest.mark.parametrize(
    ("make", "name"), [(make_task, "bias"), (make_context_task, "features"), (make_task, "table")]
)
def test_a_result_that_is_not_finite_is_a_training_error(
    tmp_path: Path, make: Callable[[], TinyTask], name: str
) -> None:
    task = make()
    base = task.parameters()
    base[name][:] = np.nan
    with pytest.raises(TrainingError, match="not finite after training; the learning rate"):
        update(task, program_of(tmp_path, task), base=base)


@pytest.mark.parametrize("rate", [np.inf, np.nan])
def test_a_learning_rate_that_is_not_finite_is_a_training_error(
    task: TinyTask, program: Recorder, rate: float
) -> None:
    """A policy refuses it; here one says so in spite of that."""
    policy = TrainingPolicy.from_dict(TRAINING.to_dict())
    object.__setattr__(policy, "learning_rate", rate)
    with pytest.raises(TrainingError, match="not finite after training"):
        update(task, program, policy=policy)


def test_positions_outside_the_table_and_nan_in_a_batch_are_named(
    task: TinyTask, program: Recorder
) -> None:
    update(task, program)
    with pytest.raises(ProgramError, match=r"ONNX Runtime failed: .*out of"):
        program.run({**program.inputs, "item": program.inputs["item"] + ITEMS})
    spoilt = Spoilt(program, "label")
    with pytest.raises(TrainingError, match="not finite after training"):
        update(task, spoilt)


class Spoilt:
    """A real program that is given NaN in one of its inputs."""

    capacity = None

    def __init__(self, program: Program, name: str) -> None:
        self._program, self._name = program, name

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        return self._program.run({**inputs, self._name: np.full_like(inputs[self._name], np.nan)})


class WrongProgram:
    """Gives outputs as they are told."""

    capacity = None

    def __init__(self, outputs: dict[str, Array]) -> None:
        self.outputs = outputs

    def run(self, _inputs: Mapping[str, Array]) -> dict[str, Array]:
        return self.outputs


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ({}, "gave nothing as table.new"),
        ({"table.new": np.zeros((2, 2), np.float32)}, r"gave float32 \[2, 2\] as table.new"),
        ({"table.new": np.zeros((2, 2))}, r"gave float64 \[2, 2\] as table.new"),
    ],
)
def test_a_program_of_another_manifest_is_refused(
    task: TinyTask, outputs: dict[str, Array], message: str
) -> None:
    with pytest.raises(ProgramError, match=message):
        update(task, WrongProgram(outputs))
