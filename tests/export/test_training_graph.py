"""The compiled local update is PyTorch's SGD, whatever the shapes, and padding is nothing.

What other optimisers, the proximal term and the clip do, `test_parity` says.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import ModelProto
from torch import Tensor, nn

from export.losses import bce
from export.onnx_graph import to_bytes
from export.recommender import Recommender, batch_inputs
from export.recommenders import RECOMMENDERS
from export.reference import local_update
from export.training_graph import training_program
from tests.export.local_updates import draw_update
from wire.manifest import BatchKind, Optimizer, Role

Arrays = Mapping[str, NDArray[Any]]
Run = Callable[[ModelProto, Arrays], dict[str, NDArray[Any]]]
MfProgram = Callable[[str, bool, int, float], ModelProto]

DIMENSION = 8
L2 = 0.05
TOLERANCE = 1e-5


class Tower(Recommender):
    """All that mf does not have: dense parameters, an embedding, two tables, a buffer."""

    kind, batch = "tower", BatchKind.POINTWISE
    scale: Tensor

    def __init__(self, items: int) -> None:
        super().__init__()
        self.items = items
        self.table = nn.Embedding(items, 4)
        self.popularity = nn.Parameter(torch.randn(items, 1))
        self.user = nn.Parameter(torch.randn(4))
        self.head = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1))
        self.register_buffer("scale", torch.tensor([0.5, 2.0, 1.0, 1.5]))

    def roles(self) -> dict[str, Role]:
        tables = {"table.weight": Role.ROWS, "popularity": Role.ROWS}
        heads = {name: Role.DENSE for name, _ in self.named_parameters() if name[:4] == "head"}
        return {**tables, "user": Role.PRIVATE, **heads}

    def loss(self, item: Tensor, label: Tensor) -> Tensor:
        rows = self.table(item)
        logit = self._logit(rows, self.popularity[item])
        decay: Tensor = rows.square().sum(1)
        return bce(logit, label) + 0.01 * decay

    def score(self) -> Tensor:
        return self._logit(self.table.weight, self.popularity)

    def _logit(self, rows: Tensor, popularity: Tensor) -> Tensor:
        logit: Tensor = self.head(rows * self.user * self.scale) + popularity
        return logit.squeeze(1)


@pytest.fixture(scope="module")
def tower() -> tuple[Tower, ModelProto]:
    model = Tower(5)
    return model, training_program(model)


def draw(
    model: Recommender, seed: int, *, rows: int, steps: int, samples: int
) -> dict[str, NDArray[Any]]:
    """A start and batches for a model; a third of the samples is padding."""
    inputs = draw_update(model, rows=rows, steps=steps, samples=samples, seed=seed)
    weights = np.random.default_rng(seed).choice([0.0, 0.5, 1.0], (steps, samples))
    return {**inputs, "weight": weights.astype(np.float32)}


def check_parity(model: Recommender, ours: Arrays, inputs: Arrays, rounding: float = 0.0) -> None:
    reference = local_update(model, Optimizer.SGD, inputs)
    assert ours.keys() == reference.keys()
    names = [name for name, _ in model.named_parameters()]
    deltas = [reference[f"{name}.new"] - inputs[name] for name in names]
    errors = [ours[f"{name}.new"] - reference[f"{name}.new"] for name in names]
    assert norm(errors) <= TOLERANCE * norm(deltas) + rounding
    np.testing.assert_allclose(ours["loss"], reference["loss"], rtol=1e-5, atol=1e-6)


def rounding(model: Recommender, inputs: Arrays) -> float:
    """What float32 sums in another order may differ by; all that is left where steps cancel."""
    size = norm([inputs[name] for name, _ in model.named_parameters()])
    return 2e-7 * size * float(np.sqrt(inputs["weight"].size))


def norm(arrays: list[NDArray[Any]]) -> float:
    return float(np.sqrt(sum(float(np.square(a, dtype=np.float64).sum()) for a in arrays)))


shapes = st.fixed_dictionaries(
    {
        "rows": st.integers(1, 9),
        "steps": st.integers(1, 6),
        "samples": st.integers(1, 12),
    }
)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("loss", ["bce", "bpr"])
@settings(deadline=None, max_examples=25)
@given(shape=shapes, seed=st.integers(0, 2**32))
def test_mf_is_pytorch_sgd(
    mf_program: MfProgram, run: Run, loss: str, bias: bool, shape: dict[str, int], seed: int
) -> None:
    model = RECOMMENDERS["mf"](items=3, loss=loss, dimension=DIMENSION, bias=bias, l2=L2)
    inputs = draw(model, seed, **shape)
    outputs = run(mf_program(loss, bias, DIMENSION, L2), inputs)
    check_parity(model, outputs, inputs, rounding(model, inputs))


@settings(deadline=None, max_examples=25)
@given(shape=shapes, seed=st.integers(0, 2**32))
def test_a_recommender_with_dense_parameters_is_pytorch_sgd(
    tower: tuple[Tower, ModelProto], run: Run, shape: dict[str, int], seed: int
) -> None:
    model, program = tower
    inputs = draw(model, seed, **shape)
    check_parity(model, run(program, inputs), inputs, rounding(model, inputs))


@pytest.mark.parametrize("loss", ["bce", "bpr"])
def test_parity_holds_over_a_long_update(mf_program: MfProgram, run: Run, loss: str) -> None:
    model = RECOMMENDERS["mf"](items=3, loss=loss, dimension=DIMENSION, l2=L2)
    inputs = draw(model, 0, rows=200, steps=100, samples=64)
    inputs["learning_rate"] = np.array(0.05, np.float32)
    check_parity(model, run(mf_program(loss, False, DIMENSION, L2), inputs), inputs)


@pytest.mark.parametrize("loss", ["bce", "bpr"])
def test_padding_changes_nothing(mf_program: MfProgram, run: Run, loss: str) -> None:
    model = RECOMMENDERS["mf"](items=3, loss=loss, dimension=DIMENSION)
    program = mf_program(loss, False, DIMENSION, L2)
    inputs = draw(model, 1, rows=7, steps=4, samples=5)
    padded = dict(inputs)
    for name in (*batch_inputs(model), "weight"):
        # Three more samples in each step and two more steps, all of weight 0.
        padded[name] = np.pad(inputs[name], ((0, 2), (0, 3)))
    plain, more = run(program, inputs), run(program, padded)
    for name in ("user_vector.new", "item_rows.new"):
        # Another batch size may sum in another order; without padding to sum, the last bit stays.
        np.testing.assert_allclose(more[name], plain[name], rtol=0, atol=1e-7)
    np.testing.assert_allclose(more["loss"][:4], plain["loss"], rtol=1e-6)
    assert not more["loss"][4:].any()
    nothing = {**inputs, "weight": np.zeros_like(inputs["weight"])}
    unchanged = run(program, nothing)
    np.testing.assert_array_equal(unchanged["user_vector.new"], inputs["user_vector"])
    np.testing.assert_array_equal(unchanged["item_rows.new"], inputs["item_rows"])


def test_rows_outside_the_batch_keep_every_bit(mf_program: MfProgram, run: Run) -> None:
    model = RECOMMENDERS["mf"](items=3, dimension=DIMENSION)
    inputs = draw(model, 2, rows=10, steps=3, samples=4)
    inputs["item"] = inputs["item"] % 5
    trained = run(mf_program("bce", False, DIMENSION, L2), inputs)["item_rows.new"]
    np.testing.assert_array_equal(trained[5:], inputs["item_rows"][5:])


def golden_inputs(**batch: list[list[float]]) -> dict[str, NDArray[Any]]:
    arrays = {
        name: np.array(v, np.float32 if name in ("label", "weight") else np.int64)
        for name, v in batch.items()
    }
    return {
        "user_vector": np.array([0.5], np.float32),
        "item_rows": np.array([[2.0], [-1.0]], np.float32),
        "learning_rate": np.array(0.1, np.float32),
        "proximal": np.array(0, np.float32),
        "clip": np.array(np.inf, np.float32),
        **arrays,
    }


def test_golden_numbers_bce(mf_program: MfProgram, run: Run) -> None:
    # Logits 0.5 * 2 = 1 and 0.5 * -1 = -0.5; slopes sigmoid(1) - 1 = -0.26894142 and
    # 2 * (sigmoid(-0.5) - 0) = 0.75508134 for the second sample's weight of 2.
    # user: 0.5 - 0.1 * (-0.26894142 * 2 + 0.75508134 * -1) = 0.62929642
    # rows: 2 - 0.1 * -0.26894142 * 0.5 = 2.01344707; -1 - 0.1 * 0.75508134 * 0.5 = -1.03775407
    # loss: (log(1 + e^-1) + 2 * log(1 + e^-0.5)) / 3 = (0.31326169 + 0.94815397) / 3
    inputs = golden_inputs(item=[[0, 1]], label=[[1, 0]], weight=[[1, 2]])
    outputs = run(mf_program("bce", False, 1, 0.0), inputs)
    np.testing.assert_allclose(outputs["user_vector.new"], [0.62929642], rtol=1e-6)
    np.testing.assert_allclose(outputs["item_rows.new"], [[2.01344707], [-1.03775407]], rtol=1e-6)
    np.testing.assert_allclose(outputs["loss"], [0.42047189], rtol=1e-6)


def test_golden_numbers_bpr(mf_program: MfProgram, run: Run) -> None:
    # Margin 0.5 * (2 - -1) = 1.5; slope -sigmoid(-1.5) = -0.18242552
    # user: 0.5 + 0.1 * 0.18242552 * 3 = 0.55472766; rows move by 0.1 * 0.18242552 * 0.5
    # loss: log(1 + e^-1.5) = 0.20141328
    inputs = golden_inputs(positive=[[0]], negative=[[1]], weight=[[1]])
    outputs = run(mf_program("bpr", False, 1, 0.0), inputs)
    np.testing.assert_allclose(outputs["user_vector.new"], [0.55472766], rtol=1e-6)
    np.testing.assert_allclose(outputs["item_rows.new"], [[2.00912128], [-1.00912128]], rtol=1e-6)
    np.testing.assert_allclose(outputs["loss"], [0.20141328], rtol=1e-6)


def test_golden_numbers_penalty(mf_program: MfProgram, run: Run) -> None:
    # As for bce with its first sample alone, of weight 2, and l2 = 0.05:
    # user: 0.5 - 0.1 * 2 * (-0.26894142 * 2 + 0.05 * 0.5) = 0.60257657
    # loss: 0.31326169 + 0.05 / 2 * 0.5 ** 2 = 0.31951169; the row's step has no penalty
    inputs = golden_inputs(item=[[0]], label=[[1]], weight=[[2]])
    outputs = run(mf_program("bce", False, 1, L2), inputs)
    np.testing.assert_allclose(outputs["user_vector.new"], [0.60257657], rtol=1e-6)
    np.testing.assert_allclose(outputs["item_rows.new"], [[2.02689414], [-1.0]], rtol=1e-6)
    np.testing.assert_allclose(outputs["loss"], [0.31951169], rtol=1e-6)


def test_a_row_twice_in_a_batch_takes_both_steps(mf_program: MfProgram, run: Run) -> None:
    twice = golden_inputs(item=[[0, 0]], label=[[1, 1]], weight=[[1, 1]])
    # Both slopes come from the state before the step: 2 + 2 * 0.1 * 0.26894142 * 0.5.
    outputs = run(mf_program("bce", False, 1, 0.0), twice)
    np.testing.assert_allclose(outputs["item_rows.new"], [[2.02689414], [-1.0]], rtol=1e-6)


def test_a_fresh_user_of_zeros_has_half_the_slope(mf_program: MfProgram, run: Run) -> None:
    inputs = golden_inputs(item=[[0]], label=[[1]], weight=[[1]])
    inputs["user_vector"] = np.zeros(1, np.float32)
    outputs = run(mf_program("bce", False, 1, 0.0), inputs)
    np.testing.assert_allclose(outputs["user_vector.new"], [0.1 * 0.5 * 2.0], rtol=1e-6)


def test_extreme_logits_stay_finite(mf_program: MfProgram, run: Run) -> None:
    inputs = golden_inputs(item=[[0, 1]], label=[[0, 1]], weight=[[1, 1]])
    inputs["item_rows"] = np.array([[1e4], [-1e4]], np.float32)
    outputs = run(mf_program("bce", False, 1, 0.0), inputs)
    assert all(np.isfinite(value).all() for value in outputs.values())
    np.testing.assert_allclose(outputs["loss"], [5e3])


def test_only_standard_operators(mf_program: MfProgram, tower: tuple[Tower, ModelProto]) -> None:
    programs = [mf_program(loss, True, DIMENSION, L2) for loss in ("bce", "bpr")]
    for program in (*programs, tower[1]):
        onnx.checker.check_model(program, full_check=True)
        assert program.ir_version == 10
        assert [(o.domain, o.version) for o in program.opset_import] == [("", 20)]
        assert not program.functions
        assert {node.domain for node in nodes(program.graph)} == {""}


def nodes(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    bodies = [a.g for n in graph.node for a in n.attribute if a.type == onnx.AttributeProto.GRAPH]
    return [*graph.node, *(node for body in bodies for node in nodes(body))]


def test_the_program_does_not_know_the_catalogue(mf_program: MfProgram) -> None:
    small = mf_program("bce", False, DIMENSION, L2)
    large = RECOMMENDERS["mf"](items=300_000, dimension=DIMENSION, l2=L2)
    assert to_bytes(small) == to_bytes(training_program(large))


def test_no_gradient_of_the_size_of_the_table(mf_program: MfProgram) -> None:
    for loss in ("bce", "bpr"):
        # Rows are gathered and added to; nothing else touches the table.
        plain, pulled = bodies(mf_program(loss, False, DIMENSION, L2))
        assert readers(plain, "step/item_rows") == {"GatherND", "ScatterND"}
        assert readers(pulled, "step/item_rows") == {"GatherND", "Sub", "Add"}


def bodies(program: ModelProto) -> list[onnx.GraphProto]:
    """One step without and with the proximal term."""
    (branch,) = (node for node in program.graph.node if node.name == "steps")
    loops = {attribute.name: attribute.g.node[0] for attribute in branch.attribute}
    named = (loops[name].attribute for name in ("then_branch", "else_branch"))
    return [next(a.g for a in attributes if a.name == "body") for attributes in named]


def readers(graph: onnx.GraphProto, name: str) -> set[str]:
    return {node.op_type for node in graph.node if name in node.input}


def test_the_shapes_that_a_device_sees(mf_program: MfProgram) -> None:
    graph = mf_program("bce", True, DIMENSION, L2).graph
    assert {value.name: dims(value) for value in graph.input} == {
        "user_vector": [8],
        "item_rows": ["R", 9],
        "learning_rate": [],
        "proximal": [],
        "clip": [],
        "item": ["S", "B"],
        "label": ["S", "B"],
        "weight": ["S", "B"],
    }
    assert {value.name: dims(value) for value in graph.output} == {
        "user_vector.new": [8],
        "item_rows.new": ["R", 9],
        "loss": ["S"],
    }


def dims(value: onnx.ValueInfoProto) -> list[int | str]:
    return [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
