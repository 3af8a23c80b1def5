"""The compiled local update is PyTorch's, for every recommender and for every optimiser."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import ModelProto

from export.recommender import FEDERATED, TABLES, batch_inputs
from export.recommenders import RECOMMENDERS
from export.reference import local_update
from tests.export.local_updates import difference, draw_update
from tests.export.small_recommenders import SMALL
from wire.manifest import Optimizer, Role

Arrays = Mapping[str, NDArray[Any]]
Run = Callable[[ModelProto, Arrays], dict[str, NDArray[Any]]]
Compile = Callable[[str, Optimizer], ModelProto]

TOLERANCE = 1e-5
RATES = {
    Optimizer.SGD: 0.05,
    Optimizer.MOMENTUM: 0.01,
    Optimizer.ADAGRAD: 0.05,
    Optimizer.ADAM: 0.01,
}
ROWS, STEPS, SAMPLES = 24, 6, 10

every_optimizer = pytest.mark.parametrize("optimizer", list(Optimizer))


def draw(model: str, optimizer: Optimizer, **arguments: Any) -> dict[str, NDArray[Any]]:
    return draw_update(
        SMALL[model](),
        rows=ROWS,
        steps=STEPS,
        samples=SAMPLES,
        learning_rate=RATES[optimizer],
        **arguments,
    )


def named(model: str, roles: frozenset[Role]) -> list[str]:
    return [name for name, role in SMALL[model]().roles().items() if role in roles]


def distance(model: str, inputs: Arrays, outputs: Arrays) -> float:
    """The L2 norm of the delta."""
    deltas = [
        outputs[f"{name}.new"] - inputs[name].astype(np.float64) for name in named(model, FEDERATED)
    ]
    return float(np.sqrt(sum(np.square(delta).sum() for delta in deltas)))


def test_every_recommender_is_tried() -> None:
    assert {name.partition("-")[0] for name in SMALL} == set(RECOMMENDERS)


# An optimiser sees parameters, not the model that they are of. So each model is tried with one, and
# each optimiser with the smallest model and with neumf, which has parameters of every role trained.
PAIRS = [
    *((model, Optimizer.SGD) for model in SMALL),
    *((model, rule) for model in ("mf", "neumf") for rule in Optimizer if rule != Optimizer.SGD),
]


@pytest.mark.parametrize(("model", "optimizer"), PAIRS, ids=lambda value: str(value))
def test_a_program_is_pytorch(program: Compile, run: Run, model: str, optimizer: Optimizer) -> None:
    for proximal in (0.0, 0.7):
        free = draw(model, optimizer, proximal=proximal)
        reached = distance(model, free, check(program, run, model, optimizer, free))
        bound = {**free, **_arrays({"clip": reached / 2})}
        shortened = check(program, run, model, optimizer, bound)
        rel = 1e-6
        if (model, optimizer) == ("neumf", Optimizer.MOMENTUM):
            # Its delta is the shortest beside its parameters: their float32 cannot hold it better.
            rel = max(rel, rounding(model, bound, shortened))
        assert distance(model, bound, shortened) == pytest.approx(reached / 2, rel=rel)


def rounding(model: str, inputs: Arrays, outputs: Arrays) -> float:
    """The most that rounding the new parameters to float32 changes the delta's norm, relatively.

    To first order that is the sum of |delta| * half a unit in the last place, over norm squared.
    """
    moved = 0.0
    for name in named(model, FEDERATED):
        new = outputs[f"{name}.new"]
        delta = np.abs(new - inputs[name].astype(np.float64))
        moved += float((delta * np.spacing(np.abs(new))).sum()) / 2
    return moved / distance(model, inputs, outputs) ** 2


def check(
    program: Compile, run: Run, model: str, optimizer: Optimizer, inputs: Arrays
) -> dict[str, NDArray[Any]]:
    outputs = run(program(model, optimizer), inputs)
    expected = local_update(SMALL[model](), optimizer, inputs)
    assert difference(inputs, outputs, expected) <= TOLERANCE
    np.testing.assert_allclose(outputs["loss"], expected["loss"], rtol=1e-5)
    return outputs


@every_optimizer
@pytest.mark.parametrize("proximal", [0.0, 0.7])
def test_padding_and_rows_out_of_reach_change_nothing(
    program: Compile, run: Run, optimizer: Optimizer, proximal: float
) -> None:
    inputs = draw("mf", optimizer, proximal=proximal)
    padded = dict(inputs)
    for name in (*batch_inputs(SMALL["mf"]()), "weight"):
        padded[name] = np.pad(inputs[name], ((0, 0), (0, 3)))
    for name in named("mf", TABLES):
        padded[name] = np.pad(inputs[name], ((0, 5), (0, 0)), constant_values=0.3)
    plain, more = (run(program("mf", optimizer), given) for given in (inputs, padded))
    for name in named("mf", TABLES):
        np.testing.assert_array_equal(more[f"{name}.new"][ROWS:], padded[name][ROWS:])
        more[f"{name}.new"] = more[f"{name}.new"][:ROWS]
    # Another batch size may sum in another order.
    assert difference(inputs, more, plain) <= 1e-6
    np.testing.assert_allclose(more["loss"], plain["loss"], rtol=1e-6)


@every_optimizer
def test_what_is_not_finite_stays_so(program: Compile, run: Run, optimizer: Optimizer) -> None:
    inputs = draw("mf", optimizer)
    label = inputs["label"].copy()
    label[1, 2] = np.nan
    for wrong in (
        {"label": label},
        {"label": label, "clip": np.float32(0.1)},
        {"learning_rate": np.float32(np.inf)},
        {"proximal": np.float32(np.nan)},
        {"clip": np.float32(np.nan)},
    ):
        outputs = run(program("mf", optimizer), {**inputs, **_arrays(wrong)})
        assert not np.isfinite(outputs["item_rows.new"]).all()


def _arrays(values: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    return {name: np.asarray(value, np.float32) for name, value in values.items()}


def test_a_delta_too_long_for_float32_squares_is_clipped(program: Compile, run: Run) -> None:
    inputs = draw("mf", Optimizer.SGD, clip=2.0)
    one = {name: inputs[name][:1] for name in ("item", "label", "weight")}
    far = {**inputs, **one, **_arrays({"learning_rate": 1e25, "clip": np.inf})}
    assert distance("mf", far, run(program("mf", Optimizer.SGD), far)) > 1e22
    outputs = run(program("mf", Optimizer.SGD), {**far, "clip": inputs["clip"]})
    assert distance("mf", far, outputs) == pytest.approx(2.0, rel=1e-6)


@every_optimizer
def test_a_clip_that_is_long_enough_leaves_every_bit(
    program: Compile, run: Run, optimizer: Optimizer
) -> None:
    inputs = draw("mf", optimizer)
    free = run(program("mf", optimizer), inputs)
    long = np.nextafter(np.float32(distance("mf", inputs, free)), np.float32(np.inf))
    bound = run(program("mf", optimizer), {**inputs, **_arrays({"clip": long})})
    for name, values in free.items():
        np.testing.assert_array_equal(bound[name], values)


def test_a_clip_counts_and_shortens_what_is_federated_only(program: Compile, run: Run) -> None:
    inputs = draw("mf", Optimizer.SGD)
    free = run(program("mf", Optimizer.SGD), inputs)
    bound = run(program("mf", Optimizer.SGD), {**inputs, **_arrays({"clip": 0.01})})
    np.testing.assert_array_equal(bound["user_vector.new"], free["user_vector.new"])
    assert distance("mf", inputs, bound) == pytest.approx(0.01, rel=1e-6)
    # Along the same line: the cosine between the two deltas is 1.
    deltas = [given["item_rows.new"] - inputs["item_rows"] for given in (free, bound)]
    cosine = np.vdot(*deltas) / np.linalg.norm(deltas[0]) / np.linalg.norm(deltas[1])
    assert cosine == pytest.approx(1.0, abs=1e-5)


@every_optimizer
def test_a_stronger_proximal_term_stays_closer_to_the_start(
    program: Compile, run: Run, optimizer: Optimizer
) -> None:
    distances = []
    for proximal in (0.0, 0.5, 2.0, 8.0):
        inputs = draw("mf", optimizer, proximal=proximal)
        distances.append(distance("mf", inputs, run(program("mf", optimizer), inputs)))
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] < 0.9 * distances[0]


def test_golden_numbers_of_a_proximal_step(program: Compile, run: Run) -> None:
    # Two steps on one row, without a loss that counts: the first leaves the start, the second is
    # pulled back by learning_rate * proximal = 1/4 of the way that the first one went.
    inputs = draw("mf", Optimizer.SGD)
    two = {name: inputs[name][:2] for name in ("item", "label", "weight")}
    one = {**inputs, **two, "weight": two["weight"] * np.array([[1.0], [0.0]], np.float32)}
    free = run(program("mf", Optimizer.SGD), one)["item_rows.new"] - inputs["item_rows"]
    pulled = run(
        program("mf", Optimizer.SGD),
        {**one, **_arrays({"proximal": 0.25 / RATES[Optimizer.SGD]})},
    )["item_rows.new"]
    np.testing.assert_allclose(pulled - inputs["item_rows"], 0.75 * free, atol=1e-7)
