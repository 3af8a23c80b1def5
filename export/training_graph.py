"""The local update as one ONNX graph: the steps of SGD, looped inside it by a ``Scan``.

Inputs, in this order:

- each parameter under its own name: a ``rows`` parameter as the local table float32 [R, width],
  others float32 in full shape;
- ``learning_rate`` float32 [];
- the batches of `BATCH_INPUTS` and ``weight`` float32, each [S, B]: S steps of B samples. Positions
  count in the local tables. A sample of weight 0 is padding and changes nothing.

Outputs: ``<parameter>.new`` for each parameter, and ``loss`` float32 [S], the weighted mean of each
step's losses before that step: sum(weight * loss) / max(sum(weight), 1).

A step is p <- p - learning_rate * d/dp sum(weight * loss): the sum over the batch, not its mean,
so the learning rate is that of plain SGD, sample by sample, and does not change its meaning with
the batch size.

R, S and B may be any size from 1; memory and time depend on them and not on the catalogue. Run it
on one thread (``intra_op_num_threads=1``): ONNX Runtime adds rows that occur twice in a batch
without a lock when it spreads a large batch over threads (microsoft/onnxruntime issue 18048), and
one is faster anyhow.
"""

from collections.abc import Sequence

import numpy as np
import torch
from onnx import GraphProto, ModelProto, NodeProto, ValueInfoProto, helper, numpy_helper

from export.onnx_graph import convert, tensor_info, to_model
from export.recommender import BATCH_INPUTS, Recommender, example_batch, parameter_specs
from export.step import trace_step
from wire.manifest import ParameterSpec, Role

__all__ = ["training_program"]

_EXAMPLE_ROWS = 11
_EXAMPLE_SAMPLES = 5
# The names in the body of the loop must differ from those around it.
_BODY = "step."


def training_program(recommender: Recommender) -> ModelProto:
    """Compile the local update of a recommender; the values of its parameters play no part.

    Raises:
        RecommenderError: the recommender breaks a rule, or cannot be exported.
    """
    parameters = parameter_specs(recommender)
    body = _step_graph(recommender, parameters)
    batch = BATCH_INPUTS[recommender.batch]
    names = [spec.name for spec in parameters]
    loop = helper.make_node(
        "Scan",
        [*names, *batch, "rate"],
        [*(f"{name}.new" for name in names), "losses"],
        name="steps",
        num_scan_inputs=len(batch) + 1,
        body=body,
    )
    steps = {**batch, "weight": torch.float32}
    return to_model(
        helper.make_graph(
            [*_rate(), loop, *_weighted_mean()],
            "local update",
            [
                *(_parameter_info(spec) for spec in parameters),
                tensor_info("learning_rate", torch.float32, []),
                *(tensor_info(name, dtype, ["S", "B"]) for name, dtype in steps.items()),
            ],
            [
                *(_parameter_info(spec, ".new") for spec in parameters),
                tensor_info("loss", torch.float32, ["S"]),
            ],
            initializer=[
                numpy_helper.from_array(np.array([1], np.int64), "sample_axis"),
                numpy_helper.from_array(np.array(1, np.float32), "one"),
            ],
        )
    )


def _step_graph(recommender: Recommender, parameters: Sequence[ParameterSpec]) -> GraphProto:
    step = trace_step(recommender)
    specs = {spec.name: spec for spec in parameters}
    trained = [specs[name] for name in step.parameters]
    batch = example_batch(recommender, _EXAMPLE_SAMPLES, _EXAMPLE_ROWS)
    tables = {spec.name: torch.zeros(_example_shape(spec)) for spec in trained}
    inputs = {**tables, **batch, "rate": torch.ones(_EXAMPLE_SAMPLES)}
    dynamic = {spec.name: "R" for spec in trained if spec.role is Role.ROWS}
    dynamic |= dict.fromkeys([*batch, "rate"], "B")
    return convert(
        step.graph,
        {_BODY + name: value for name, value in inputs.items()},
        {_BODY + name: dimension for name, dimension in dynamic.items()},
        [*(f"{_BODY}{name}.new" for name in tables), f"{_BODY}losses"],
    )


def _rate() -> list[NodeProto]:
    # To change the reduction, change the rate: it is all that a step sees of the weights.
    return [
        helper.make_node("Neg", ["learning_rate"], ["descent"]),
        helper.make_node("Mul", ["weight", "descent"], ["rate"]),
    ]


def _weighted_mean() -> list[NodeProto]:
    return [
        helper.make_node("Mul", ["losses", "weight"], ["weighted"]),
        helper.make_node("ReduceSum", ["weighted", "sample_axis"], ["sum"], keepdims=0),
        helper.make_node("ReduceSum", ["weight", "sample_axis"], ["weights"], keepdims=0),
        helper.make_node("Max", ["weights", "one"], ["divisor"]),
        helper.make_node("Div", ["sum", "divisor"], ["loss"]),
    ]


def _example_shape(spec: ParameterSpec) -> tuple[int, ...]:
    return (_EXAMPLE_ROWS, *spec.shape[1:]) if spec.role is Role.ROWS else spec.shape


def _parameter_info(spec: ParameterSpec, suffix: str = "") -> ValueInfoProto:
    rows = spec.role is Role.ROWS
    shape: list[int | str] = ["R", *spec.shape[1:]] if rows else [*spec.shape]
    return tensor_info(spec.name + suffix, torch.float32, shape)
