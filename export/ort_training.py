"""The local update as ONNX Runtime Training's own artifacts, whose shapes are static.

They are made by ``onnxruntime.training.artifacts``, and every binding of that runtime (C, C++, C#,
Java, Swift, Python) takes them. The device loops over the steps:

- ``training``: forward, loss and backward. Takes the frozen parameters that the loss reads, the
  batch inputs and ``weight`` float32 [B], in the order of the graph's inputs. Returns the objective
  sum(weight * loss), then ``loss`` float32 [], the weighted mean of the losses before the step:
  sum(weight * loss) / max(sum(weight), 1);
- ``proximal``: the same with FedProx's pull, proximal / 2 * sum((parameter - start)^2) over the
  federated parameters. It also takes ``proximal`` float32 [] and each ``<parameter>.start``;
- ``optimizer``: SGD, or Adam, which is AdamW without weight decay;
- ``checkpoint``: what is trained, without values ("nominal"). A device fills in its own, and takes
  a fresh one for each local update, whose optimiser then starts from zero.

Tables have ``capacity.rows`` rows and B is ``capacity.batch``. With less, fill tables with rows of
zeros, and batches with samples of zeros of weight 0: they change nothing. The clip of the delta is
not in the artifacts: it is a few lines after the last step.
"""

import logging
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, helper, numpy_helper
from torch import Tensor, nn
from torch.func import functional_call

from export.errors import ExportError, RecommenderError, reason
from export.gradients import trace_gradients
from export.onnx_graph import IR_VERSION, convert, to_bytes, to_model
from export.optimizers import ADAM_BETAS, ADAM_EPSILON
from export.origin import place_of_error, place_of_operator
from export.ort_lowering import lower
from export.recommender import (
    FEDERATED,
    TABLES,
    TRAINED,
    Recommender,
    batch_inputs,
    example_batch,
    local_copy,
    parameter_specs,
    parameter_values,
)
from wire.manifest import Capacity, Optimizer

__all__ = ["ort_training_programs"]

Arrays = dict[str, NDArray[np.float32]]

_LOSS = "loss"
_OBJECTIVES = {"training": "loss.sum", "proximal": "loss.pulled"}
"""The output that each training model minimises. No parameter's name begins like this."""

_TRAINING, _OPTIMIZER = "training_model.onnx", "optimizer_model.onnx"
_NOMINAL, _COMPLETE = "nominal_checkpoint", "checkpoint"
_TEMPORARY = "temp.onnx"
_OPTIMIZERS = (Optimizer.SGD, Optimizer.ADAM)
_NO_GRADIENT = re.compile(r"gradient builder has not been registered: (\w+)")
_REMEDY = "write the loss with other operators, or leave out the runtime ort-training"
_TOLERANCE = 1e-4
"""Of a gradient, relative to its norm: far above the rounding of float32, far below any mistake."""
_MOVED = 0.1
"""How far the gradient is tried from where the parameters are: zeros may lie on an edge."""


def ort_training_programs(
    recommender: Recommender, optimizer: Optimizer, capacity: Capacity
) -> dict[str, bytes]:
    """Compile the local update.

    Equal arguments give equal bytes, and the values of the parameters do not change them: they are
    where the gradient is tried against PyTorch's.

    Returns:
        The files ``training``, ``proximal``, ``optimizer`` and ``checkpoint``.

    Raises:
        RecommenderError: the recommender breaks a rule, or cannot be exported.
        ExportError: ONNX Runtime Training is not installed, lacks the optimiser, cannot
            differentiate the loss, or gets its gradient wrong.
    """
    if optimizer not in _OPTIMIZERS:
        raise ExportError(
            f"ONNX Runtime Training has no optimiser {optimizer.value!r}, only "
            f"{' and '.join(_OPTIMIZERS)}; choose one of these, or leave out that runtime"
        )
    if Path(_TEMPORARY).exists():
        raise ExportError(
            f"ONNX Runtime Training deletes {_TEMPORARY} in the current folder; move it first"
        )
    engine = _engine()
    # What no runtime can train is refused by this, in the words that all share.
    _, places = trace_gradients(recommender)
    update = _Update(recommender, capacity)
    graph = _forward(update, places)
    files: dict[str, bytes] = {}
    with tempfile.TemporaryDirectory() as name:
        for part, objective in _OBJECTIVES.items():
            folder = Path(name) / part
            folder.mkdir()
            model = _minimising(graph, objective, update)
            try:
                _generate(engine, model, objective, update.trained, optimizer, folder)
            except RuntimeError as error:  # what the engine raises for all that it does not like
                raise ExportError(_failure(error, places)) from error
            _try_gradient(engine, update, recommender, part, folder)
            files[part] = (folder / _TRAINING).read_bytes()
        return {
            **files,
            "optimizer": (folder / _OPTIMIZER).read_bytes(),
            "checkpoint": (folder / _NOMINAL).read_bytes(),
        }


class _Update(nn.Module):
    """What a step minimises, without and with the proximal term, and the loss that it reports.

    Attributes:
        examples: a tensor for each input, in order: the parameters, the batch inputs, ``weight``,
            ``proximal`` and the starts.
        trained: the names of those that are trained.
    """

    def __init__(self, recommender: Recommender, capacity: Capacity) -> None:
        super().__init__()
        specs = parameter_specs(recommender)
        self._losses = _Losses(local_copy(recommender, capacity.rows))
        values = parameter_values(self._losses.recommender)
        self.trained = [spec.name for spec in specs if spec.role in TRAINED]
        self._anchors = {f"{n.name}.start": n.name for n in specs if n.role in FEDERATED}
        self._names, self._batch = [*values], [*batch_inputs(recommender)]
        self.examples: dict[str, Tensor] = {
            **values,
            **example_batch(recommender, capacity.batch, capacity.rows),
            "weight": torch.ones(capacity.batch),
            "proximal": torch.ones(()),
            **{anchor: torch.zeros_like(values[name]) for anchor, name in self._anchors.items()},
        }

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The two objectives of `_OBJECTIVES` and the loss, as a function of the inputs."""
        values = dict(zip(self.examples, inputs, strict=True))
        parameters = {f"recommender.{name}": values[name] for name in self._names}
        batch = tuple(values[name] for name in self._batch)
        losses: Tensor = functional_call(self._losses, parameters, batch)
        total = (values["weight"] * losses).sum()
        return total, self._pulled(total, values), total / values["weight"].sum().clamp(min=1.0)

    def gradient(self, part: str, values: Mapping[str, Tensor]) -> Arrays:
        """PyTorch's gradient of one of the `_OBJECTIVES`, by the name of the parameter.

        Not that of `forward`: what a functional call takes from a slice of a list is detached.
        """
        local = self._losses.recommender
        for name, value in parameter_values(local).items():
            value.copy_(values[name])
        trained = {name: local.get_parameter(name) for name in self.trained}
        total = (values["weight"] * local.loss(*(values[name] for name in self._batch))).sum()
        objective = self._pulled(total, {**values, **trained}) if part == "proximal" else total
        gradients = torch.autograd.grad(objective, list(trained.values()))
        return {name: part.numpy() for name, part in zip(trained, gradients, strict=True)}

    def _pulled(self, total: Tensor, values: Mapping[str, Tensor]) -> Tensor:
        apart = [values[name] - values[anchor] for anchor, name in self._anchors.items()]
        first, *others = [(distance * distance).sum() for distance in apart]
        return total + values["proximal"] / 2 * sum(others, first)


class _Losses(nn.Module):
    def __init__(self, recommender: Recommender) -> None:
        super().__init__()
        self.recommender = recommender

    def forward(self, *batch: Tensor) -> Tensor:
        return self.recommender.loss(*batch)


def _engine() -> ModuleType:
    try:
        with _silence():
            import onnxruntime
            import onnxruntime.training.api
            import onnxruntime.training.artifacts
    except ImportError as error:
        raise ExportError(
            f"ONNX Runtime Training is not installed ({error}); it takes the place of ONNX "
            "Runtime, so install it in an environment of its own: "
            "pip install 'rivulet[export,ort-training]'"
        ) from None
    module: ModuleType = onnxruntime
    return module


def _forward(update: _Update, places: Mapping[str, str]) -> GraphProto:
    """The forward pass as a graph with an input for each of the examples."""
    try:
        lowered = lower(update, tuple(update.examples.values()))
    except Exception as error:  # torch.export raises errors of many unrelated types
        raise RecommenderError(
            f"loss() cannot be traced{place_of_error(error)} ({reason(error)})"
        ) from error
    return convert(lowered, update.examples, {}, [*_OBJECTIVES.values(), _LOSS], places)


def _minimising(graph: GraphProto, objective: str, update: _Update) -> ModelProto:
    """The part of the graph that an objective and the loss need.

    Trained parameters are initial values in it, because that is what the engine asks for.
    """
    needed, nodes = {objective, _LOSS}, []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            nodes.append(node)
    trained = {name: update.examples[name].numpy() for name in update.trained}
    constants = [constant for constant in graph.initializer if constant.name in needed]
    return to_model(
        helper.make_graph(
            nodes[::-1],
            graph.name,
            [info for info in graph.input if info.name in needed - trained.keys()],
            [info for info in graph.output if info.name in needed],
            [
                *(numpy_helper.from_array(value, name) for name, value in trained.items()),
                *constants,
            ],
        )
    )


def _generate(
    engine: ModuleType,
    model: ModelProto,
    objective: str,
    trained: list[str],
    optimizer: Optimizer,
    folder: Path,
) -> None:
    """Let the engine write its artifacts into a folder."""
    blocks = engine.training.onnxblock.optim
    adam = blocks.AdamW(betas=ADAM_BETAS, eps=ADAM_EPSILON, weight_decay=0.0)
    with _silence():
        engine.training.artifacts.generate_artifacts(
            model,
            requires_grad=trained,
            loss_input_names=[objective],
            additional_output_names=[_LOSS],
            optimizer=adam if optimizer is Optimizer.ADAM else blocks.SGD(),
            artifact_directory=folder,
            nominal_checkpoint=True,
        )
    for file in (_TRAINING, _OPTIMIZER):
        (folder / file).write_bytes(to_bytes(_finished(onnx.load(folder / file))))


def _failure(error: RuntimeError, places: Mapping[str, str]) -> str:
    missing = _NO_GRADIENT.search(str(error))
    if missing is None:
        return f"ONNX Runtime Training cannot differentiate the loss ({reason(error)}); {_REMEDY}"
    # ONNX's names for what PyTorch calls elu, max or amax: Elu, ReduceMax.
    name = missing[1].lower().removeprefix("reduce")
    place = place_of_operator(places, name) or place_of_operator(places, f"a{name}")
    return f"ONNX Runtime Training has no gradient for {missing[1]}{place}; {_REMEDY}"


def _finished(model: ModelProto) -> ModelProto:
    """Make it a model that the engine can load, and the same content the same bytes."""
    model.ir_version = IR_VERSION
    used = {node.domain for node in model.graph.node}
    for opset in [opset for opset in model.opset_import if opset.domain not in used]:
        model.opset_import.remove(opset)
    for node in model.graph.node:
        if node.op_type in ("AdamWOptimizer", "SGDOptimizerV2"):
            # The engine numbers the names that it makes up, from the start of the process.
            node.name, model.graph.output[0].name = node.op_type, "updated"
            node.output[:] = ["updated"]
        for attribute in node.attribute:
            # 0 adds epsilon to the corrected root of the second moment, as torch.optim.Adam does.
            if attribute.name == "adam_mode":
                attribute.i = 0
    return model


def _try_gradient(
    engine: ModuleType, update: _Update, recommender: Recommender, part: str, folder: Path
) -> None:
    """Compare the engine's gradient with PyTorch's.

    Nothing else shows what it gets wrong without a word: it knows no detach(), and some of its
    gradients are approximate.
    """
    values = _try_values(update, recommender)
    expected = update.gradient(part, values)
    try:
        with _silence():
            found = _gradient(engine, update.trained, values, folder)
    except Exception as error:  # the engine's exceptions share no public base class
        raise ExportError(
            f"ONNX Runtime Training cannot run the loss ({reason(error)}); {_REMEDY}"
        ) from error
    length = np.sqrt(sum(float(np.square(gradient).sum()) for gradient in expected.values()))
    apart = {n: float(np.linalg.norm(found[n] - right)) / length for n, right in expected.items()}
    wrong = [name for name, distance in apart.items() if not distance <= _TOLERANCE]
    if wrong:
        raise ExportError(
            f"ONNX Runtime Training gets the gradient of {wrong[0]!r} wrong, by "
            f"{apart[wrong[0]]:.1g} of the whole gradient's length (it ignores detach(), and "
            f"approximates some functions); {_REMEDY}"
        )


def _try_values(update: _Update, recommender: Recommender) -> dict[str, Tensor]:
    """The parameters as they are but for a small random move, and a batch of random weights."""
    random = torch.Generator().manual_seed(0)
    tables = {name for name, role in recommender.roles().items() if role in TABLES}
    values = dict(update.examples)
    for name, value in parameter_values(recommender).items():
        rows = torch.arange(len(values[name])) % len(value) if name in tables else ...
        moved = torch.randn(values[name].shape, generator=random) * _MOVED
        values[name] = value[rows] + moved if name in update.trained else value[rows]
    values["weight"] = torch.rand(values["weight"].shape, generator=random)
    return values


def _gradient(
    engine: ModuleType, trained: list[str], values: Mapping[str, Tensor], folder: Path
) -> Arrays:
    """The engine's gradient, by the name of the parameter."""
    api = engine.training.api
    state = api.CheckpointState.load_checkpoint(folder / _COMPLETE)
    module = api.Module(folder / _TRAINING, state)
    for name in trained:
        state.parameters[name] = values[name].numpy()
    module(*(values[name].numpy() for name in module.input_names()))
    # Copied: they are the memory of the module.
    return {name: np.array(state.parameters[name].grad) for name in trained}


@contextmanager
def _silence() -> Iterator[None]:
    """Keep the engine from writing to standard error, and from configuring the root logger."""
    placeholder = logging.NullHandler()
    logging.root.addHandler(placeholder)
    # Below Python, where the engine writes; it has no setting for what it says there.
    kept = os.dup(2)
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        logging.root.removeHandler(placeholder)
