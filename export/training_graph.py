"""The local update as one ONNX graph: the steps, looped inside it by a ``Scan``.

Inputs, in this order:

- each parameter under its own name: a table (roles ``rows`` and ``frozen-rows``) as the local one,
  float32 [R, width], others float32 in full shape;
- ``learning_rate``, ``proximal`` and ``clip``, each float32 []: ``proximal`` is mu of FedProx, 0
  for none; ``clip`` bounds the L2 norm of the delta over the federated parameters, +inf for none;
- the batches of `batch_inputs`, [S, B] or [S, B, width]: S steps of B samples. Positions count in
  the local tables;
- ``weight`` float32 [S, B]. A sample of weight 0 is padding and adds nothing to a gradient.

Outputs: ``<parameter>.new`` for each trained parameter, and ``loss`` float32 [S], the weighted mean
of each step's losses before that step: sum(weight * loss) / max(sum(weight), 1).

A step goes along the gradient of sum(weight * loss), the sum over the batch and not its mean, plus
proximal / 2 * |parameter - start|^2 over the federated parameters. So with SGD the learning rate is
that of single samples, and does not change its meaning with the batch size. After the last step, a
delta longer than ``clip`` is scaled down to it; private parameters do not count and stay as they
are. A step of nothing but padding has a gradient of zero, which leaves plain SGD where it is, while
momentum and Adam go on.

A *fleet program* does the same for D devices at once, for a simulator: a local update takes most of
its time between operators, which many devices share. Whatever a device has of its own, [...] above,
is [D, ...] there, batches [S, D, B] or [S, D, B, width] and ``loss`` [S, D]; the rates and what is
frozen and no table are common to all. It has no ``clip``: that is one number for each device at the
end, see `edge_agent.runtimes.static_shapes`. Devices of fewer rows, samples or steps than others
are filled up with zeros; but a step of padding is one of the optimiser's steps, as above.

R, S and B may be any size from 1; memory and time depend on them and not on the catalogue. Run it
on one thread (``intra_op_num_threads=1``): ONNX Runtime adds rows that occur twice in a batch
without a lock when it spreads a large batch over threads (microsoft/onnxruntime issue 18048), and
one is faster anyhow.
"""

import numpy as np
import torch
from onnx import GraphProto, ModelProto, NodeProto, helper, numpy_helper

from export.clipping import clipping
from export.onnx_graph import tensor_info, to_model
from export.recommender import (
    FEDERATED,
    TRAINED,
    BatchInput,
    Recommender,
    batch_inputs,
    parameter_specs,
)
from export.step import Extent, Step, trace_step
from export.step_graph import step_graph, without_pull, zeros_like
from wire.manifest import Optimizer, Role

__all__ = ["training_program"]


def training_program(
    recommender: Recommender, optimizer: Optimizer = Optimizer.SGD, fleet: Extent | None = None
) -> ModelProto:
    """Compile the local update of a recommender; the values of its parameters play no part.

    Args:
        recommender: the model; it is not changed.
        optimizer: what turns gradients into steps.
        fleet: for a fleet program of so many devices.

    Raises:
        RecommenderError: the recommender breaks a rule, or cannot be exported.
    """
    specs = {spec.name: spec for spec in parameter_specs(recommender)}
    # One device's delta is one number long, which the graph of many has no place for.
    bounded = frozenset[Role]() if fleet else FEDERATED
    trained = [spec.name for spec in specs.values() if spec.role in TRAINED]
    ends = {n: f"/end/{n}" if specs[n].role in bounded else f"{n}.new" for n in trained}
    clipped = {name: end for name, end in ends.items() if specs[name].role in bounded}
    rates = ("learning_rate", "proximal", *(("clip",) if clipped else ()))
    batch = {**batch_inputs(recommender), "weight": BatchInput(torch.float32)}
    extent = ("S", fleet.devices, fleet.samples) if fleet else ("S", "B")
    step = trace_step(recommender, optimizer, proximal=True, fleet=fleet)
    shapes = step.shapes("R", "B")
    body = step_graph(step)
    # A loop of its own, because the proximal term costs each step a pass over the tables.
    steps = helper.make_node(
        "If",
        ["/plain"],
        [*ends.values(), "/losses"],
        name="steps",
        then_branch=_loop(step, without_pull(step, body)),
        else_branch=_loop(step, body),
    )
    return to_model(
        helper.make_graph(
            [
                *_rates(step.scaled),
                *_zeros(step),
                helper.make_node("Equal", ["proximal", zeros_like(None)], ["/plain"]),
                steps,
                *(clipping(clipped) if clipped else ()),
                *_weighted_mean(),
            ],
            "local update",
            [
                *(tensor_info(name, torch.float32, shapes[name]) for name in specs),
                *(tensor_info(name, torch.float32, ()) for name in rates),
                *(tensor_info(n, what.dtype, what.shape(*extent)) for n, what in batch.items()),
            ],
            [
                *(tensor_info(f"{name}.new", torch.float32, shapes[name]) for name in trained),
                tensor_info("loss", torch.float32, extent[:-1]),
            ],
            initializer=[
                numpy_helper.from_array(np.array([len(extent) - 1], np.int64), "/sample_axis"),
                numpy_helper.from_array(np.array(0, np.float32), zeros_like(None)),
                numpy_helper.from_array(np.array(1, np.float32), "/one"),
            ],
        )
    )


def _loop(step: Step, body: GraphProto) -> GraphProto:
    """All steps, as the branch of an ``If``: the trained parameters' ends, then losses [S, B]."""
    scanned = (*step.batch, "rate")
    ends = [f"/last/{name}" for name in (*step.trained, *step.state)]
    loop = helper.make_node(
        "Scan",
        [*step.trained, *map(zeros_like, step.state.values()), *step.batch, "/rate"],
        [*ends, "/last/losses"],
        num_scan_inputs=len(scanned),
        body=body,
    )
    outputs = [*ends[: len(step.trained)], "/last/losses"]
    infos = [helper.make_empty_tensor_value_info(name) for name in outputs]
    return helper.make_graph([loop], "loop", [], infos)


def _rates(scaled: bool) -> list[NodeProto]:
    # To change the reduction, change the rate: it is all that a step sees of the weights.
    if not scaled:
        return [helper.make_node("Identity", ["weight"], ["/rate"])]
    return [
        helper.make_node("Neg", ["learning_rate"], ["/descent"]),
        helper.make_node("Mul", ["weight", "/descent"], ["/rate"]),
        helper.make_node("Mul", ["proximal", "/descent"], ["/pull"]),
    ]


def _zeros(step: Step) -> list[NodeProto]:
    """The start of the optimiser's state."""
    nodes: list[NodeProto] = []
    for parameter in dict.fromkeys(filter(None, step.state.values())):
        nodes.append(helper.make_node("Shape", [parameter], [f"/shape/{parameter}"]))
        zeros = zeros_like(parameter)
        nodes.append(helper.make_node("ConstantOfShape", [f"/shape/{parameter}"], [zeros]))
    return nodes


def _weighted_mean() -> list[NodeProto]:
    return [
        helper.make_node("Mul", ["/losses", "weight"], ["/weighted"]),
        helper.make_node("ReduceSum", ["/weighted", "/sample_axis"], ["/sum"], keepdims=0),
        helper.make_node("ReduceSum", ["weight", "/sample_axis"], ["/weights"], keepdims=0),
        helper.make_node("Max", ["/weights", "/one"], ["/divisor"]),
        helper.make_node("Div", ["/sum", "/divisor"], ["loss"]),
    ]
