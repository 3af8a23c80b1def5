"""The loss of a recommender and its gradient as one graph: the way of PyTorch.

``torch.export`` traces the loss, its joint-graph pass appends the backward pass. The joint pass
knows parameters of fixed shapes only. A gradient of rows comes out of it as "add these values into
zeros of the table's shape"; here it is taken apart into positions and values, which takes the
table's size out of the graph.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import Dim, ExportedProgram
from torch.export.experimental import _export_forward_backward
from torch.export.graph_signature import InputKind, OutputKind
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode
from torch.utils._pytree import tree_leaves

from export.errors import RecommenderError, causes, reason
from export.origin import Call, place_of_error, place_of_operator, places_of
from export.quiet import quiet_torch
from export.recommender import TRAINED, Recommender, example_batch, local_copy, parameter_specs
from export.simplify import is_zeros, simplify
from export.trial import check_samples_apart, try_loss
from wire.manifest import ParameterSpec

__all__ = ["trace_gradients"]

# A prime that no model has as a width: a number of rows that leaks into the graph is recognised.
_TRACED_ROWS = 7_919
_TRACED_SAMPLES = 13
_MODULE = "recommender"

_aten = torch.ops.aten


def trace_gradients(recommender: Recommender) -> tuple[fx.GraphModule, dict[str, str]]:
    """Trace a loss and its gradient.

    Returns:
        A graph that takes the trained parameters, the frozen ones, the batch inputs and ``rate``
        float32 [B], and returns for each trained parameter the fields of a `Gradient`, that of
        sum(rate * loss), then the losses float32 [B]; any R and any B from 2 are good. And the
        lines of the loss that its operators come from, by operator.

    Raises:
        RecommenderError: the recommender breaks a rule, or its loss cannot be traced or depends on
            the number of rows.
    """
    local = local_copy(recommender, _TRACED_ROWS)
    calls = try_loss(local, _TRACED_SAMPLES, _TRACED_ROWS)
    places = places_of(calls)
    joint = _trace_joint(local, places)
    # Only now, because what cannot be traced has a reason that says more.
    check_samples_apart(local, _TRACED_SAMPLES, _TRACED_ROWS)
    gradients = _to_gradients(joint, parameter_specs(recommender))
    _check_rows_free(gradients.graph, calls)
    return gradients, places


class _Objective(nn.Module):
    def __init__(self, recommender: Recommender) -> None:
        super().__init__()
        self.recommender = recommender

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        *batch, rate = inputs
        losses = self.recommender.loss(*batch)
        return (rate * losses).sum(), losses.detach()


def _trace_joint(recommender: Recommender, places: Mapping[str, str]) -> ExportedProgram:
    batch = example_batch(recommender, _TRACED_SAMPLES, _TRACED_ROWS)
    inputs = (*batch.values(), torch.ones(_TRACED_SAMPLES))
    shapes = (({0: Dim("B")},) * len(inputs),)
    try:
        with quiet_torch():
            forward = torch.export.export(_Objective(recommender), inputs, dynamic_shapes=shapes)
            _lower_embeddings(forward.graph, places)
            return _export_forward_backward(forward)
    except RecommenderError:
        raise
    except Exception as error:  # torch.export raises errors of many unrelated types
        raise RecommenderError(_failure(error)) from error


def _failure(error: Exception) -> str:
    place = place_of_error(error)
    if any(isinstance(cause, GuardOnDataDependentSymNode) for cause in causes(error)):
        return (
            f"loss() decides by the value of a tensor{place}; a program cannot branch on data, so "
            "compute both and choose with torch.where"
        )
    if "specialized it to be a constant" in str(error):
        return (
            "loss() works for one number of samples only; loop over no samples, and write no "
            "number of samples into a shape"
        )
    return f"loss() cannot be traced{place} ({reason(error)})"


def _lower_embeddings(graph: fx.Graph, places: Mapping[str, str]) -> None:
    # The backward pass of an embedding clamps the ids to the traced number of rows.
    for node in graph.find_nodes(op="call_function", target=_aten.embedding.default):
        table, ids, *options = node.args
        if options[:1] not in ([], [-1]) or any(options[1:]) or node.kwargs:
            raise RecommenderError(
                f"the embedding{place_of_operator(places, 'aten.embedding')} has padding_idx, "
                "scale_grad_by_freq or sparse, which cannot be exported; index the table instead, "
                "as in self.table[item]"
            )
        node.target, node.args = _aten.index.Tensor, (table, [ids])


def _to_gradients(joint: ExportedProgram, specs: Sequence[ParameterSpec]) -> fx.GraphModule:
    """The joint graph as a function of trained parameters, frozen ones, batch inputs and rate.

    It returns the fields of a `Gradient` for each trained parameter, and the losses.
    """
    graph = joint.graph
    simplify(graph)
    trained = [spec.name for spec in specs if spec.role in TRAINED]
    frozen = [spec.name for spec in specs if spec.role not in TRAINED]
    parameters = _take_inputs(joint, {*trained, *frozen})
    gradients, losses = _outputs(joint)
    graph.output_node().args = ((tuple(_parts(gradients[name]) for name in trained), losses),)
    for name in reversed((*trained, *frozen)):
        next(iter(graph.nodes)).prepend(parameters[name])
    graph.eliminate_dead_code()
    graph.lint()
    return fx.GraphModule(joint.graph_module, graph)


def _take_inputs(joint: ExportedProgram, names: Collection[str]) -> dict[str, fx.Node]:
    """The inputs that stand for parameters; other buffers and constants become attributes."""
    values = {**joint.state_dict, **joint.constants}
    parameters: dict[str, fx.Node] = {}
    for spec in joint.graph_signature.input_specs:
        node = _placeholder(joint, spec.arg.name)
        if _parameter_name(spec.target) in names:
            parameters[_parameter_name(spec.target)] = node
        elif spec.kind is not InputKind.USER_INPUT:
            joint.graph_module.register_buffer(node.name, values[spec.target])
            with joint.graph.inserting_before(node):
                node.replace_all_uses_with(joint.graph.get_attr(node.name))
            joint.graph.erase_node(node)
    return parameters


def _outputs(joint: ExportedProgram) -> tuple[dict[str, fx.Node], fx.Node]:
    """The gradient of each parameter, and the losses of the samples."""
    nodes = joint.graph.output_node().args[0]
    named = list(zip(joint.graph_signature.output_specs, nodes, strict=True))
    gradients = {
        _parameter_name(spec.target): node
        for spec, node in named
        if spec.kind is OutputKind.GRADIENT_TO_PARAMETER
    }
    (losses,) = (node for spec, node in named if spec.kind is OutputKind.USER_OUTPUT)
    return gradients, losses


def _placeholder(joint: ExportedProgram, name: str) -> fx.Node:
    inputs: dict[str, fx.Node] = {n.name: n for n in joint.graph.find_nodes(op="placeholder")}
    return inputs[name]


def _parameter_name(target: str | None) -> str:
    return str(target).removeprefix(f"{_MODULE}.")


def _parts(gradient: fx.Node) -> tuple[tuple[fx.Node, ...], tuple[tuple[Any, Any], ...]]:
    """The fields of a `Gradient`: one term for each place where the loss reads the parameter."""
    terms = list(_terms(gradient))
    whole = tuple(term for term in terms if not _is_row_update(term))
    rows = tuple((term.args[1], term.args[2]) for term in terms if _is_row_update(term))
    return whole, rows


def _terms(gradient: fx.Node) -> Iterator[fx.Node]:
    """The summands of a gradient."""
    summands = [argument for argument in gradient.args if isinstance(argument, fx.Node)]
    if gradient.target is _aten.add.Tensor and len(summands) == 2 and not gradient.kwargs:
        for summand in summands:
            yield from _terms(summand)
    else:
        yield gradient


def _is_row_update(term: fx.Node) -> bool:
    accumulates = term.target is _aten.index_put.default and term.args[3:] == (True,)
    return accumulates and is_zeros(term.args[0])


def _check_rows_free(graph: fx.Graph, calls: Sequence[Call]) -> None:
    for node in graph.nodes:
        if _counts_rows((node.args, node.kwargs)):
            place = next((c.place for c in calls if _is_over_rows(c)), "")
            raise RecommenderError(
                f"the loss or its gradient ({node.target}) depends on the number of rows{place}; "
                "each device has another one, so use only the rows of the batch"
            )


def _is_over_rows(call: Call) -> bool:
    shapes = [leaf.shape for leaf in tree_leaves(call.result) if isinstance(leaf, Tensor)]
    return bool(call.place) and _counts_rows((call.arguments, shapes))


def _counts_rows(values: object) -> bool:
    numbers = (leaf for leaf in tree_leaves(values) if isinstance(leaf, int | float))
    return any(number and number % _TRACED_ROWS == 0 for number in numbers)
