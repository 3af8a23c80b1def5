"""From a traced PyTorch graph to a plain ONNX graph, and from that to a model file's bytes."""

import re
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any

import onnx
import torch
from onnx import AttributeProto, GraphProto, ModelProto, TensorProto, ValueInfoProto, helper
from torch import Tensor, nn
from torch.export import Dim

from export.errors import RecommenderError, reason
from export.onnx_fusion import shrink
from export.origin import place_of_error, place_of_operator
from export.quiet import quiet_torch

__all__ = ["IR_VERSION", "OPSET", "convert", "tensor_info", "to_bytes", "to_model"]

OPSET = 20
IR_VERSION = 10
"""The newest that ONNX Runtime 1.19, the last one with a training build, still loads."""

_MISSING = re.compile(r"No ONNX function found for <OpOverload\(op='([\w.]+)'")
_ELEMENT_TYPES = {torch.float32: TensorProto.FLOAT, torch.int64: TensorProto.INT64}


def convert(
    module: nn.Module,
    inputs: Mapping[str, Tensor],
    varying: Mapping[str, Mapping[int, str]],
    outputs: Sequence[str],
    places: Mapping[str, str],
) -> GraphProto:
    """Convert a module to a graph of standard operators.

    The same module gives the same graph: what PyTorch leaves of itself in it (source paths,
    counters in names) is taken out.

    Args:
        module: takes the inputs by position.
        inputs: examples, by the name that each gets in the graph.
        varying: for each input the names of the dimensions whose size may vary, by their place.
        outputs: names of the results.
        places: the lines of a person's module that its operators come from, by operator.

    Raises:
        RecommenderError: an operator has no standard ONNX form, or a dimension cannot vary.
    """
    names = sorted({name for places in varying.values() for name in places.values()})
    dimensions = {name: Dim(name) for name in names}
    shapes = tuple(
        {place: dimensions[dimension] for place, dimension in varying.get(name, {}).items()}
        for name in inputs
    )
    called = _Called(module).eval()
    try:
        with quiet_torch():
            program = torch.onnx.export(
                called,
                tuple(inputs.values()),
                dynamo=True,
                opset_version=OPSET,
                dynamic_shapes=(shapes,),
                input_names=list(inputs),
                output_names=list(outputs),
                optimize=False,
                verbose=False,
            )
    except Exception as error:  # the exporter raises errors of many unrelated types
        raise RecommenderError(_failure(error, places)) from error
    if program is None:
        raise RecommenderError("conversion to ONNX failed")
    shrink(program.model)
    model = program.model_proto
    _check_standard(model)
    return _tidy(model.graph)


def _failure(error: Exception, places: Mapping[str, str]) -> str:
    missing = _MISSING.search(reason(error))
    if missing is None:
        return f"conversion to ONNX failed{place_of_error(error)} ({reason(error)})"
    operator = missing[1]
    return (
        f"operator {operator}{place_of_operator(places, operator)} has no standard ONNX form; "
        "write it with other operators"
    )


class _Called(nn.Module):
    """A module with one signature for all, as the exporter wants shapes in the signature's form."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *inputs: Tensor) -> Any:
        return self.module(*inputs)


def to_model(graph: GraphProto) -> ModelProto:
    """Wrap a graph into a model and let ONNX check it."""
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="rivulet",
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def to_bytes(model: ModelProto) -> bytes:
    """The bytes of the model file; equal models give equal bytes."""
    return bytes(model.SerializeToString(deterministic=True))


def tensor_info(name: str, dtype: torch.dtype, shape: Sequence[int | str]) -> ValueInfoProto:
    """Describe an input or output; a dimension that may vary is given by its name."""
    return helper.make_tensor_value_info(name, _ELEMENT_TYPES[dtype], shape)


def _check_standard(model: ModelProto) -> None:
    for node in model.graph.node:
        if node.domain not in ("", "ai.onnx"):
            raise RecommenderError(
                f"operator {node.domain}.{node.op_type} is not a standard ONNX operator; "
                "write the loss without it"
            )
        if any(attribute.type == AttributeProto.GRAPH for attribute in node.attribute):
            raise RecommenderError("the loss branches or loops on its data; write it without")


def _tidy(graph: GraphProto) -> GraphProto:
    names = {"": "", **{info.name: info.name for info in (*graph.input, *graph.output)}}
    numbers = count()
    for constant in graph.initializer:
        constant.name = names.setdefault(constant.name, f"/{next(numbers)}")
    for node in graph.node:
        for result in filter(None, node.output):
            names.setdefault(result, f"/{next(numbers)}")
        node.input[:] = [names[name] for name in node.input]
        node.output[:] = [names[name] for name in node.output]
        node.ClearField("name")
    for part in (*graph.node, *graph.input, *graph.output, *graph.initializer):
        part.ClearField("doc_string")
        part.ClearField("metadata_props")
    return helper.make_graph(
        graph.node, "main", graph.input, graph.output, initializer=graph.initializer
    )
