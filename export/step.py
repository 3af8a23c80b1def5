"""From a recommender to one training step as a single graph: forward, loss, backward, SGD.

The way of PyTorch: ``torch.export`` traces the loss, its joint-graph pass appends the backward
pass. What this module adds makes the graph fit for a device:

- The joint pass knows parameters of fixed shapes only. A gradient of rows comes out of it as "add
  these values into zeros of the table's shape"; the step adds them into the table itself. That
  takes the table's size out of the graph, and a dense gradient out of the device's memory.
- The objective is ``sum(rate * loss)`` with ``rate = -learning_rate * weight``: its gradient *is*
  the SGD step, and nothing is left to multiply.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn
from torch.export import Dim, ExportedProgram
from torch.export.experimental import _export_forward_backward
from torch.export.graph_signature import InputKind, OutputKind

from export.errors import RecommenderError, reason
from export.quiet import quiet_torch
from export.recommender import Recommender, example_batch, local_copy
from export.simplify import is_zeros, simplify

__all__ = ["Step", "trace_step"]

# A prime that no model has as a width: a number of rows that leaks into the graph is recognised.
_TRACED_ROWS = 7_919
_TRACED_SAMPLES = 13
_MODULE = "recommender"

_aten = torch.ops.aten


@dataclass(frozen=True)
class Step:
    """One step of SGD.

    Attributes:
        graph: takes the parameters, then the batch inputs [B] in the order of `BATCH_INPUTS`, then
            ``rate`` float32 [B] (each sample's weight times the learning rate, negated). Returns
            the new parameters, then the losses float32 [B] before the step. Any B of 2 or more,
            and any number of rows, is good.
        parameters: names, in the order in which the graph takes and returns them.
    """

    graph: fx.GraphModule
    parameters: tuple[str, ...]


def trace_step(recommender: Recommender) -> Step:
    """Trace a recommender into one training step.

    Raises:
        RecommenderError: the loss cannot be traced, has a wrong shape, leaves a parameter out,
            changes a buffer, or depends on the number of rows.
    """
    local = local_copy(recommender, _TRACED_ROWS)
    batch = example_batch(recommender, _TRACED_SAMPLES, _TRACED_ROWS)
    _try_loss(local, batch)
    step = _to_step(_trace_joint(local, batch))
    _check_rows_free(step.graph.graph)
    return step


class _Objective(nn.Module):
    def __init__(self, recommender: Recommender) -> None:
        super().__init__()
        self.recommender = recommender

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        *batch, rate = inputs
        losses = self.recommender.loss(*batch)
        return (rate * losses).sum(), losses.detach()


def _try_loss(recommender: Recommender, batch: Mapping[str, Tensor]) -> None:
    losses = recommender.loss(*batch.values())
    if losses.shape != (_TRACED_SAMPLES,) or losses.dtype is not torch.float32:
        raise RecommenderError(
            f"loss() returned {losses.dtype} {list(losses.shape)} for {_TRACED_SAMPLES} samples; "
            f"expected torch.float32 [{_TRACED_SAMPLES}], a loss for each"
        )
    if not losses.requires_grad:
        raise RecommenderError("loss() depends on no parameter")
    names, parameters = zip(*recommender.named_parameters(), strict=True)
    gradients = torch.autograd.grad(losses.sum(), parameters, allow_unused=True)
    for name, gradient in zip(names, gradients, strict=True):
        if gradient is None:
            raise RecommenderError(f"parameter {name!r} takes no part in the loss; remove it")


def _trace_joint(recommender: Recommender, batch: Mapping[str, Tensor]) -> ExportedProgram:
    inputs = (*batch.values(), torch.ones(_TRACED_SAMPLES))
    shapes = (({0: Dim("B")},) * len(inputs),)
    try:
        with quiet_torch():
            forward = torch.export.export(_Objective(recommender), inputs, dynamic_shapes=shapes)
            _lower_embeddings(forward.graph)
            return _export_forward_backward(forward)
    except RecommenderError:
        raise
    except Exception as error:  # torch.export raises errors of many unrelated types
        raise RecommenderError(f"the loss cannot be traced: {reason(error)}") from error


def _lower_embeddings(graph: fx.Graph) -> None:
    # The backward pass of an embedding clamps the ids to the traced number of rows.
    for node in graph.find_nodes(op="call_function", target=_aten.embedding.default):
        table, ids, *options = node.args
        if options[:1] not in ([], [-1]) or any(options[1:]) or node.kwargs:
            raise RecommenderError(
                "an embedding with padding_idx, scale_grad_by_freq or sparse cannot be exported; "
                "index the table instead, as in self.table[item]"
            )
        node.target, node.args = _aten.index.Tensor, (table, [ids])


def _to_step(joint: ExportedProgram) -> Step:
    graph = joint.graph
    simplify(graph)
    _hold_constants(joint)
    parameters = _parameter_inputs(joint)
    gradients, losses = _outputs(joint)
    output = graph.output_node()
    with graph.inserting_before(output):
        trained = [_descend(graph, parameters[name], gradients[name]) for name in parameters]
    output.args = ((*trained, losses),)
    graph.eliminate_dead_code()
    graph.lint()
    return Step(fx.GraphModule(joint.graph_module, graph), tuple(parameters))


def _hold_constants(joint: ExportedProgram) -> None:
    """Turn the inputs that stand for buffers and constants into attributes of the module."""
    values = {**joint.state_dict, **joint.constants}
    for spec in joint.graph_signature.input_specs:
        if spec.kind in (InputKind.PARAMETER, InputKind.USER_INPUT):
            continue
        node = _placeholder(joint, spec.arg.name)
        joint.graph_module.register_buffer(node.name, values[spec.target])
        with joint.graph.inserting_before(node):
            node.replace_all_uses_with(joint.graph.get_attr(node.name))
        joint.graph.erase_node(node)


def _parameter_inputs(joint: ExportedProgram) -> dict[str, fx.Node]:
    return {
        _parameter_name(spec.target): _placeholder(joint, spec.arg.name)
        for spec in joint.graph_signature.input_specs
        if spec.kind is InputKind.PARAMETER
    }


def _outputs(joint: ExportedProgram) -> tuple[dict[str, fx.Node], fx.Node]:
    """The gradient of each parameter, and the losses of the samples."""
    gradients: dict[str, fx.Node] = {}
    nodes = joint.graph.output_node().args[0]
    for spec, node in zip(joint.graph_signature.output_specs, nodes, strict=True):
        if spec.kind is OutputKind.GRADIENT_TO_PARAMETER:
            gradients[_parameter_name(spec.target)] = node
        elif spec.kind is OutputKind.USER_OUTPUT:
            losses = node
        elif spec.kind is not OutputKind.LOSS_OUTPUT:
            raise RecommenderError(f"loss() changes {spec.target} in place; it must not")
    return gradients, losses


def _placeholder(joint: ExportedProgram, name: str) -> fx.Node:
    inputs: dict[str, fx.Node] = {n.name: n for n in joint.graph.find_nodes(op="placeholder")}
    return inputs[name]


def _parameter_name(target: str | None) -> str:
    return str(target).removeprefix(f"{_MODULE}.")


def _descend(graph: fx.Graph, parameter: fx.Node, gradient: fx.Node) -> fx.Node:
    """The parameter plus its gradient, which the objective has already scaled to a step."""
    for term in _terms(gradient):
        if _is_row_update(term):
            arguments = (parameter, *term.args[1:])
            parameter = graph.call_function(_aten.index_put.default, arguments)
        else:
            parameter = graph.call_function(_aten.add.Tensor, (parameter, term))
    return parameter


def _terms(gradient: fx.Node) -> Iterator[fx.Node]:
    """The summands of a gradient: one for each place where the loss reads the parameter."""
    summands = [argument for argument in gradient.args if isinstance(argument, fx.Node)]
    if gradient.target is _aten.add.Tensor and len(summands) == 2 and not gradient.kwargs:
        for summand in summands:
            yield from _terms(summand)
    else:
        yield gradient


def _is_row_update(term: fx.Node) -> bool:
    accumulates = term.target is _aten.index_put.default and term.args[3:] == (True,)
    return accumulates and is_zeros(term.args[0])


def _check_rows_free(graph: fx.Graph) -> None:
    for node in graph.nodes:
        numbers = _numbers((node.args, node.kwargs))
        if any(number and number % _TRACED_ROWS == 0 for number in numbers):
            raise RecommenderError(
                f"the loss or its gradient ({node.target}) depends on the number of rows, which "
                "is another one on each device; use only the rows of the batch"
            )


def _numbers(argument: object) -> Iterator[float]:
    if isinstance(argument, int | float):
        yield argument
    elif isinstance(argument, Mapping):
        yield from _numbers(tuple(argument.values()))
    elif isinstance(argument, tuple | list):
        for part in argument:
            yield from _numbers(part)
