"""One training step as the body of a loop in an ONNX graph.

Its inputs and outputs have the names that `export.step.Step` gives them, behind `BODY`; what is the
same in all steps has no input and is captured from the graph around it: the frozen parameters and
the starts of the others under the names of the parameters, ``learning_rate``, the proximal weight
under the name that `pull_name` gives, and `zeros_like` each parameter.
"""

from collections.abc import Mapping, Sequence

from onnx import GraphProto, NodeProto, ValueInfoProto, helper

from export.onnx_graph import convert
from export.step import Step

__all__ = ["BODY", "pull_name", "step_graph", "without_pull", "zeros_like"]

# No parameter has a name with a slash: those are the graph's own.
BODY = "step/"

_EXAMPLE_ROWS = 11
_EXAMPLE_SAMPLES = 5


def pull_name(step: Step) -> str:
    """The name of the step's ``pull`` in the graph around it."""
    return "/pull" if step.scaled else "proximal"


def zeros_like(parameter: str | None) -> str:
    """The name of zeros of a parameter's shape in the graph around; of shape [] for None."""
    return "/zeros" if parameter is None else f"/zeros/{parameter}"


def step_graph(step: Step) -> GraphProto:
    """Convert a step.

    Raises:
        RecommenderError: an operator has no standard ONNX form.
    """
    around = {
        **{name: name for name in (*step.frozen, "learning_rate")},
        **step.anchors,
        "pull": pull_name(step),
    }
    examples = step.examples(_EXAMPLE_ROWS, _EXAMPLE_SAMPLES)
    names = {name: around.get(name, BODY + name) for name in examples}
    varying = {
        names[name]: {at: size for at, size in enumerate(shape) if isinstance(size, str)}
        for name, shape in step.shapes("R", "B").items()
    }
    graph = convert(
        step,
        {names[name]: example for name, example in examples.items()},
        varying,
        [BODY + name for name in step.outputs],
        step.places,
    )
    inputs = [info for info in graph.input if info.name.startswith(BODY)]
    return _with(graph, graph.node, inputs)


def without_pull(step: Step, body: GraphProto) -> GraphProto:
    """The graph of a step without the proximal term.

    It is taken out of the graph with it, because converting another one takes seconds.
    """
    made_by = {result: node for node in body.node for result in node.output}
    nodes: list[NodeProto] = []
    instead: dict[str, str] = {}
    terms: set[str] = set()
    for node in body.node:
        rest = [name for name in node.input if name not in terms]
        if pull_name(step) in node.input:
            (distance,) = (made_by[name] for name in node.input if name != pull_name(step))
            terms.update(node.output)
            instead[node.output[0]] = zeros_like(distance.input[1])
        elif node.op_type == "Add" and len(rest) == 1:
            instead[node.output[0]] = instead.get(rest[0], rest[0])
        else:
            nodes.append(_renamed(node, instead))
    return _with(body, _used(nodes, {info.name for info in body.output}), body.input)


def _renamed(node: NodeProto, names: Mapping[str, str]) -> NodeProto:
    copy = NodeProto()
    copy.CopyFrom(node)
    copy.input[:] = [names.get(name, name) for name in node.input]
    return copy


def _used(nodes: list[NodeProto], needed: set[str]) -> list[NodeProto]:
    """The nodes that the needed results come from, in order."""
    used: list[NodeProto] = []
    for node in reversed(nodes):
        if not needed.isdisjoint(node.output):
            needed |= set(node.input)
            used.append(node)
    return used[::-1]


def _with(
    graph: GraphProto, nodes: Sequence[NodeProto], inputs: Sequence[ValueInfoProto]
) -> GraphProto:
    return helper.make_graph(nodes, graph.name, inputs, graph.output, initializer=graph.initializer)
