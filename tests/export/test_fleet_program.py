"""A fleet program does for each device what the program of one device does, whoever is beside it.

The one-device program is PyTorch's local update, which `test_parity` shows.
"""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import ModelProto

from export.recommender import parameter_specs
from export.step import Extent
from export.training_graph import training_program
from tests.export.local_updates import difference, draw_update
from tests.export.small_recommenders import SMALL
from wire.manifest import Optimizer, Role

Arrays = Mapping[str, NDArray[Any]]
Run = Callable[[ModelProto, Arrays], dict[str, NDArray[Any]]]
Compile = Callable[[str, Optimizer], ModelProto]

ABSOLUTE = 1e-6
RELATIVE = 1e-5
"""Of a change, as between a program and PyTorch."""
EXTENT = Extent(devices=3, samples=16)
ROWS, STEPS = 24, 4
RATES = {Optimizer.SGD: 0.05, Optimizer.MOMENTUM: 0.01}


@pytest.fixture(scope="module")
def fleet() -> Compile:
    return cache(lambda name, optimizer: training_program(SMALL[name](), optimizer, EXTENT))


def draw(model: str, optimizer: Optimizer, seed: int, proximal: float) -> dict[str, NDArray[Any]]:
    own = draw_update(
        SMALL[model](),
        rows=ROWS,
        steps=STEPS,
        samples=EXTENT.samples,
        seed=seed,
        learning_rate=RATES.get(optimizer, 0.05),
        proximal=proximal,
    )
    return {**own, **frozen(model, draw_update(SMALL[model](), rows=1, steps=1, samples=2))}


def frozen(model: str, values: Arrays) -> dict[str, NDArray[Any]]:
    specs = parameter_specs(SMALL[model]())
    return {spec.name: values[spec.name] for spec in specs if spec.role is Role.FROZEN}


def stacked(program: ModelProto, devices: list[dict[str, NDArray[Any]]]) -> Arrays:
    inputs = {}
    for info in program.graph.input:
        shape = info.type.tensor_type.shape.dim
        arrays = [device[info.name] for device in devices]
        if len(shape) == arrays[0].ndim:
            inputs[info.name] = arrays[0]
        else:
            inputs[info.name] = np.stack(arrays, axis=int(shape[0].dim_param == "S"))
    return inputs


def own(outputs: Arrays, device: int) -> Arrays:
    return {n: v[:, device] if n == "loss" else v[device] for n, v in outputs.items()}


# sasrec takes most of a minute to compile; the simulator's tests train it together and alone.
CASES = [
    *((model, Optimizer.SGD) for model in ("linear", "mf-bpr", "fm", "two_tower")),
    ("mf", Optimizer.MOMENTUM),
    ("mf", Optimizer.ADAGRAD),
    # The most state, for parameters of every role that is trained.
    ("neumf", Optimizer.ADAM),
]


@pytest.mark.parametrize(("model", "optimizer"), CASES, ids=lambda value: str(value))
def test_each_device_learns_what_it_would_alone(
    program: Compile, fleet: Compile, run: Run, model: str, optimizer: Optimizer
) -> None:
    together, single = fleet(model, optimizer), program(model, optimizer)
    for proximal in (0.0, 0.7):
        devices = [draw(model, optimizer, seed, proximal) for seed in range(EXTENT.devices)]
        outputs = run(together, stacked(together, devices))
        for place, inputs in enumerate(devices):
            expected, found = run(single, inputs), own(outputs, place)
            assert difference(inputs, found, expected) <= RELATIVE
            for name, value in expected.items():
                np.testing.assert_allclose(found[name], value, rtol=0.0, atol=ABSOLUTE)


def test_every_recommender_and_optimizer_is_tried() -> None:
    kinds = {model.partition("-")[0] for model, _ in CASES}
    assert kinds == {name.partition("-")[0] for name in SMALL} - {"sasrec"}
    assert {optimizer for _, optimizer in CASES} == set(Optimizer)


@pytest.mark.parametrize(
    ("model", "optimizer"), [("mf-bpr", Optimizer.SGD), ("neumf", Optimizer.ADAM)]
)
def test_who_is_beside_a_device_changes_no_bit(
    fleet: Compile, run: Run, model: str, optimizer: Optimizer
) -> None:
    program = fleet(model, optimizer)
    devices = [draw(model, optimizer, seed, 0.0) for seed in range(EXTENT.devices)]
    there = own(run(program, stacked(program, devices)), 0)
    strangers = [draw(model, optimizer, seed, 0.0) for seed in range(7, 9)]
    strangers[0] = {n: v * np.inf if n == "item_rows" else v for n, v in strangers[0].items()}
    elsewhere = own(run(program, stacked(program, [*strangers, devices[0]])), 2)
    for name, value in there.items():
        assert np.array_equal(value, elsewhere[name]), name
