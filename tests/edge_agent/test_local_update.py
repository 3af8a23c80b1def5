"""The local update against a NumPy twin, and its defined results at the edges."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from edge_agent.errors import ProgramError, TrainingError
from edge_agent.local_update import LocalUpdate, train
from edge_agent.runtimes import Array, Program, open_runtime
from edge_agent.sampling import LocalBatches, draw_batches
from tests.edge_agent.tiny_task import ITEMS, TRAINING, WIDTH, TinyTask
from wire.delta import FloatArray, RowBlock
from wire.policy import TrainingPolicy

HISTORY = np.array([3, 14, 15, 9, 26, 5, 14], np.int64)
USER = {"user": np.full(WIDTH, 0.1, np.float32)}


@pytest.fixture
def program(tmp_path: Path, task: TinyTask) -> Program:
    entry = task.manifest.file(task.manifest.programs["onnx"])
    file = tmp_path / "update.onnx"
    file.write_bytes(task.blobs[entry.sha256])
    return open_runtime("onnx").load(file, entry.sha256)


def update(
    task: TinyTask,
    program: Program,
    history: np.ndarray[tuple[int], np.dtype[np.int64]] = HISTORY,
    policy: TrainingPolicy = TRAINING,
    base: Mapping[str, FloatArray] | None = None,
) -> LocalUpdate:
    rng = np.random.default_rng(3)
    start = task.parameters() if base is None else base
    return train(task.manifest, start, USER, history, policy, rng, program)


def twin(task: TinyTask, batches: LocalBatches) -> dict[str, FloatArray]:
    """The same steps on the whole table, in NumPy."""
    parameters = task.parameters()
    table, bias, user = parameters["table"], parameters["bias"], USER["user"].copy()
    for item, label, weight in zip(
        *(batches.inputs[n] for n in ("item", "label", "weight")), strict=True
    ):
        rows = table[batches.rows[item]]
        slope = (1 / (1 + np.exp(-(rows @ user + bias))) - label) * weight * TRAINING.learning_rate
        np.add.at(table, batches.rows[item], -slope[:, None] * user)
        user, bias = user - slope @ rows, bias - slope.sum()
    return {"table": table, "user": user, "bias": bias}


def test_delta_and_private_parameters_match_a_numpy_twin(task: TinyTask, program: Program) -> None:
    learned = update(task, program)
    batches = draw_batches(task.manifest.batch, HISTORY, ITEMS, TRAINING, np.random.default_rng(3))
    expected, start = twin(task, batches), task.parameters()
    rows = learned.delta["table"]
    assert isinstance(rows, RowBlock)
    change = expected["table"] - start["table"]
    assert rows.rows.tolist() == np.flatnonzero(change.any(axis=1)).tolist()
    np.testing.assert_allclose(rows.values, change[rows.rows], atol=1e-6)
    np.testing.assert_allclose(learned.delta["bias"], expected["bias"], atol=1e-6)  # type: ignore[arg-type]
    np.testing.assert_allclose(learned.private["user"], expected["user"], atol=1e-6)
    assert learned.losses.shape == batches.inputs["weight"].shape[:1]
    assert (learned.examples, learned.samples) == (len(HISTORY), batches.samples)


def test_only_the_rows_of_the_batches_are_read(task: TinyTask, program: Program) -> None:
    """Other rows may hold anything: a device never looks at the whole table."""
    base = task.parameters()
    batches = draw_batches(task.manifest.batch, HISTORY, ITEMS, TRAINING, np.random.default_rng(3))
    poisoned = base["table"].copy()
    poisoned[np.setdiff1d(np.arange(ITEMS), batches.rows)] = np.nan
    learned = update(task, program, base={**base, "table": poisoned})
    np.testing.assert_equal(
        learned.delta["table"].values,  # type: ignore[union-attr]
        update(task, program).delta["table"].values,  # type: ignore[union-attr]
    )


def test_an_empty_history_gives_an_empty_delta(task: TinyTask, program: Program) -> None:
    learned = update(task, program, np.zeros(0, np.int64))
    assert learned.delta == {}
    assert learned.private == USER
    assert (learned.examples, learned.samples, len(learned.losses)) == (0, 0, 0)


def test_one_interaction_and_the_whole_catalogue(task: TinyTask, program: Program) -> None:
    assert update(task, program, np.array([7])).samples == 6
    assert update(task, program, np.arange(ITEMS)).samples == 2 * ITEMS


def test_nothing_given_is_changed(task: TinyTask, program: Program) -> None:
    base, user = task.parameters(), USER["user"].copy()
    update(task, program, base=base)
    np.testing.assert_equal(base, task.parameters())
    np.testing.assert_equal(USER["user"], user)


def test_a_result_that_is_not_finite_is_a_training_error(task: TinyTask, program: Program) -> None:
    base = {**task.parameters(), "bias": np.array([np.nan], np.float32)}
    with pytest.raises(TrainingError, match="not finite after training; the learning rate"):
        update(task, program, base=base)


class WrongProgram:
    """Gives outputs as they are told."""

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
