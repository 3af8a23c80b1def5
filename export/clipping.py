"""Bound the length of a delta, as nodes of an ONNX graph."""

from collections.abc import Mapping

from onnx import GraphProto, NodeProto, TensorProto, helper

__all__ = ["clipping"]


def clipping(ends: Mapping[str, str]) -> list[NodeProto]:
    """Nodes that scale a delta down to the L2 norm ``clip``, float32 [], if it is longer.

    They write ``<name>.new`` for each parameter: its end, bit for bit, where the norm is within
    ``clip``; else start + (end - start) * clip / norm. The norm is over all the parameters
    together. A delta that is not finite stays so. Without a bound, +inf, no norm is computed.

    Args:
        ends: for each parameter, by the name of its start, the name of its end.
    """
    return [
        helper.make_node("IsInf", ["clip"], ["/unbounded"], detect_negative=0),
        helper.make_node(
            "If",
            ["/unbounded"],
            [f"{name}.new" for name in ends],
            name="clip",
            then_branch=_unchanged(ends),
            else_branch=_clipped(ends),
        ),
    ]


def _unchanged(ends: Mapping[str, str]) -> GraphProto:
    outputs = [f"/same/{name}" for name in ends]
    nodes = [
        helper.make_node("Identity", [end], [output])
        for end, output in zip(ends.values(), outputs, strict=True)
    ]
    return _branch("unchanged", nodes, outputs)


def _clipped(ends: Mapping[str, str]) -> GraphProto:
    """In float64, whose squares of float32 numbers never overflow to an infinite norm."""
    nodes = [node for name, end in ends.items() for node in _squares(name, end)]
    nodes += [
        helper.make_node("Sum", [f"/squares/{name}" for name in ends], ["/squares"]),
        helper.make_node("Sqrt", ["/squares"], ["/norm"]),
        helper.make_node("Cast", ["clip"], ["/bound"], to=TensorProto.DOUBLE),
        # A norm of NaN is not within, so that it is not passed over.
        helper.make_node("LessOrEqual", ["/norm", "/bound"], ["/within"]),
        helper.make_node("Div", ["/bound", "/norm"], ["/ratio"]),
        helper.make_node("Cast", ["/ratio"], ["/scale"], to=TensorProto.FLOAT),
    ]
    nodes += [node for name, end in ends.items() for node in _scaled(name, end)]
    return _branch("clipped", nodes, [f"/clipped/{name}" for name in ends])


def _squares(name: str, end: str) -> list[NodeProto]:
    return [
        helper.make_node("Sub", [end, name], [f"/delta/{name}"]),
        helper.make_node("Cast", [f"/delta/{name}"], [f"/exact/{name}"], to=TensorProto.DOUBLE),
        helper.make_node("ReduceSumSquare", [f"/exact/{name}"], [f"/squares/{name}"], keepdims=0),
    ]


def _scaled(name: str, end: str) -> list[NodeProto]:
    return [
        helper.make_node("Mul", [f"/delta/{name}", "/scale"], [f"/step/{name}"]),
        helper.make_node("Add", [name, f"/step/{name}"], [f"/scaled/{name}"]),
        helper.make_node("Where", ["/within", end, f"/scaled/{name}"], [f"/clipped/{name}"]),
    ]


def _branch(name: str, nodes: list[NodeProto], outputs: list[str]) -> GraphProto:
    infos = [helper.make_empty_tensor_value_info(output) for output in outputs]
    return helper.make_graph(nodes, name, [], infos)
