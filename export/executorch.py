"""The local update and the scorer as ExecuTorch programs, whose shapes are static.

``update.pte`` holds one training step, and the device loops over it. It needs no training extension
of ExecuTorch: parameters, optimiser state and batch are inputs and the results are outputs, so
every binding (C++, Kotlin, Swift, Python) can run it, and every optimiser works. Its methods:

- ``forward``: takes the trained parameters, the optimiser's state (which starts at zero), the
  frozen parameters, the batch inputs and ``weight`` float32 [B], then ``learning_rate`` float32 [].
  Returns the new trained parameters, the new state, and ``loss`` float32 [], the weighted mean of
  the losses before the step: sum(weight * loss) / max(sum(weight), 1);
- ``proximal``: the same step with FedProx's pull. Behind the inputs of ``forward`` it takes the
  start of each federated parameter as ``<parameter>.start``, then ``proximal`` float32 [];
- ``inputs``, ``proximal_inputs``, ``outputs``: the names of these tensors in order, as one text
  with spaces between; and among them ``state``, those of the optimiser, ``tables``, the parameters
  with a row for each item at hand, and ``samples``, the inputs with an entry for each sample;
- ``rows``, ``batch``: the capacity.

``scorer.pte`` has ``forward``, which returns the score of each row float32 [rows], and ``inputs``,
``tables`` and ``rows``.

With less than the capacity, fill tables with rows of zeros, and batches with samples of zeros of
weight 0: they change nothing. Copy the results before the next call, which writes into their
memory. The clip of the delta is not in the program: it is a few lines after the last step.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from export.errors import ExportError, RecommenderError, reason
from export.origin import place_of_error, place_of_operator
from export.quiet import quiet_torch
from export.recommender import Recommender, parameter_specs
from export.scorer import score_module
from export.step import Step, trace_step
from wire.manifest import Capacity, Optimizer

__all__ = ["executorch_programs"]

_REFUSED = re.compile(r"Operator torch\._ops\.(aten\.\w+)\.\w+ is not in Core ATen opset")


def executorch_programs(
    recommender: Recommender, optimizer: Optimizer, capacity: Capacity
) -> dict[str, bytes]:
    """Compile the local update and the scorer; the values of the parameters play no part.

    Equal arguments give equal bytes.

    Returns:
        The files ``update`` and ``scorer``.

    Raises:
        RecommenderError: the recommender breaks a rule, or cannot be exported.
        ExportError: ExecuTorch is not installed.
    """
    tables = " ".join(spec.name for spec in parameter_specs(recommender) if spec.is_table)
    step = trace_step(recommender, optimizer)
    plain = _Update(step)
    pulled = _Update(Step(step.gradients, recommender, optimizer, proximal=True))
    update = _compile(
        {
            "forward": (plain, plain.examples(capacity)),
            "proximal": (pulled, pulled.examples(capacity)),
        },
        {
            "inputs": " ".join(plain.inputs),
            "proximal_inputs": " ".join(pulled.inputs),
            "outputs": " ".join(plain.outputs),
            "state": " ".join(plain.state),
            "tables": tables,
            "samples": " ".join(plain.samples),
            "rows": capacity.rows,
            "batch": capacity.batch,
        },
        step.places,
    )
    module, examples = score_module(recommender, capacity.rows)
    scorer = _compile(
        {"forward": (module, examples)},
        {"inputs": " ".join(examples), "tables": tables, "rows": capacity.rows},
        module.places,
    )
    return {"update": update, "scorer": scorer}


class _Update(nn.Module):
    """A step that takes its weights, rates and results as people state them, for all optimisers."""

    def __init__(self, step: Step) -> None:
        super().__init__()
        self._step = step
        self.samples, self.state = (*step.batch, "weight"), tuple(step.state)
        carried = (*step.trained, *self.state)
        plain = (*carried, *step.frozen, *self.samples, "learning_rate")
        self.inputs = (*plain, *step.anchors, "proximal") if step.anchors else plain
        self.outputs = (*(f"{name}.new" for name in carried), "loss")

    def examples(self, capacity: Capacity) -> dict[str, Tensor]:
        """Tensors for the inputs, to export the update with."""
        known = self._step.examples(capacity.rows, capacity.batch)
        known["weight"] = known["rate"]
        # A tensor of its own for each input: the tracer takes equal objects for the same input.
        return {name: known[name] if name in known else torch.zeros(()) for name in self.inputs}

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """One step; `inputs` and `outputs` name the tensors."""
        values = dict(zip(self.inputs, inputs, strict=True))
        weight = values["weight"]
        scale = -values["learning_rate"] if self._step.scaled else None
        values["rate"] = weight if scale is None else weight * scale
        if self._step.anchors:
            pull = values["proximal"]
            values["pull"] = pull if scale is None else pull * scale
        *advanced, losses = self._step(*(values[name] for name in self._step.inputs))
        return (*advanced, (weight * losses).sum() / weight.sum().clamp(min=1.0))


def _compile(
    methods: Mapping[str, tuple[nn.Module, Mapping[str, Tensor]]],
    constants: Mapping[str, str | int],
    places: Mapping[str, str],
) -> bytes:
    """The bytes of a program.

    Args:
        methods: by name a module and examples of the inputs that it takes by position.
        constants: what further methods return, by name.
        places: the lines of a person's module, by operator; for errors.
    """
    with quiet_torch():
        try:
            from executorch.exir import ExecutorchBackendConfig, to_edge
            from executorch.exir.passes import MemoryPlanningPass
        except ModuleNotFoundError as error:
            raise ExportError(
                f"ExecuTorch is not installed ({error}); "
                "install it with: pip install 'rivulet[executorch]'"
            ) from None
        # The caller's own memory serves as that of the inputs: the tables are not copied in.
        planning = MemoryPlanningPass(alloc_graph_input=False)
        config = ExecutorchBackendConfig(memory_planning_pass=planning)
        try:
            graphs = {
                name: torch.export.export(module, tuple(inputs.values()))
                for name, (module, inputs) in methods.items()
            }
            edge = to_edge(graphs, constant_methods=dict(constants))
            program = edge.to_executorch(config)
        except Exception as error:  # the compiler raises errors of many unrelated types
            raise RecommenderError(_failure(error, places)) from error
    _check_kernels(program.executorch_program, places)
    return bytes(program.buffer)


def _failure(error: Exception, places: Mapping[str, str]) -> str:
    refused = _REFUSED.search(reason(error))
    if refused is None:
        return f"conversion to ExecuTorch failed{place_of_error(error)} ({reason(error)})"
    return _without_kernel(refused[1], places)


def _check_kernels(program: Any, places: Mapping[str, str]) -> None:
    # The compiler knows operators that the runtime has no kernel for.
    from executorch.extension.pybindings import _C

    known = set(_C._get_operator_names())
    for operator in (operator for plan in program.execution_plan for operator in plan.operators):
        full = f"{operator.name}.{operator.overload}" if operator.overload else operator.name
        if full not in known:
            raise RecommenderError(_without_kernel(operator.name.replace("::", "."), places))


def _without_kernel(operator: str, places: Mapping[str, str]) -> str:
    return (
        f"operator {operator}{place_of_operator(places, operator)} has no ExecuTorch kernel; "
        "write it with other operators"
    )
