"""One training step of a recommender: loss, gradient, optimiser.

The objective is ``sum(rate * loss)``. With plain SGD and with momentum ``rate`` is the weight of a
sample times the negated learning rate: the gradient *is* the step, and nothing is left to multiply.
Where an optimiser needs no dense gradient, that of rows is added into the table itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor, fx, nn

from export.gradients import trace_gradients
from export.optimizers import RULES, Gradient
from export.recommender import (
    FEDERATED,
    TRAINED,
    Dimension,
    Recommender,
    batch_inputs,
    parameter_specs,
)
from wire.manifest import Optimizer

__all__ = ["Extent", "FleetStep", "Step", "trace_step"]

_sym_size = torch.ops.aten.sym_size.int


class Step(nn.Module):
    """One training step, as a function of tensors that can be exported again.

    It takes the tensors named by `inputs` by position and returns a tuple of those named by
    `outputs`. Any number of rows R is good, and any number of samples B from 2.

    Attributes:
        optimizer: what turns gradients into steps.
        trained: the trained parameters, in order.
        state: the optimiser's state; for each the parameter whose shape it has, or None for a
            float32 []. It starts at zero.
        frozen: the parameters that the loss may read and nobody trains, in order.
        anchors: ``<parameter>.start`` for each federated parameter, the value that the proximal
            term pulls it back to, and that parameter; empty without that term.
        batch: the batch inputs in order.
        scaled: whether ``rate`` and ``pull`` are multiplied by -learning_rate.
        places: the lines of the loss that its operators come from, by operator; for errors.
    """

    def __init__(
        self,
        gradients: fx.GraphModule,
        recommender: Recommender,
        optimizer: Optimizer,
        *,
        proximal: bool,
        places: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        super().__init__()
        rule, specs = RULES[optimizer], parameter_specs(recommender)
        self.gradients, self.optimizer, self.scaled = gradients, optimizer, rule.scaled
        self.trained = tuple(spec.name for spec in specs if spec.role in TRAINED)
        self.frozen = tuple(spec.name for spec in specs if spec.role not in TRAINED)
        slots = {f"{name}.{slot}": name for name in self.trained for slot in rule.slots}
        self.state: Mapping[str, str | None] = {**slots, **dict.fromkeys(rule.shared)}
        federated = [spec.name for spec in specs if spec.role in FEDERATED and proximal]
        self.anchors = {f"{name}.start": name for name in federated}
        self.batch, self.places = batch_inputs(recommender), places
        self._specs = {spec.name: spec for spec in specs}

    @property
    def inputs(self) -> tuple[str, ...]:
        """The inputs in order.

        The trained parameters, `state`, `frozen`, `anchors`, `batch`; then ``rate`` float32 [B],
        the weight of each sample; with anchors ``pull`` float32 [], the proximal weight. If
        `scaled`, both are multiplied by -learning_rate; else ``learning_rate`` float32 [] follows.
        """
        tensors = (*self.trained, *self.state, *self.frozen, *self.anchors, *self.batch, "rate")
        pull = ("pull",) if self.anchors else ()
        return (*tensors, *pull) if self.scaled else (*tensors, *pull, "learning_rate")

    @property
    def outputs(self) -> tuple[str, ...]:
        """The outputs in order.

        ``<name>.new`` of the trained parameters and of `state`, then ``losses`` float32 [B], from
        before the step and not weighed.
        """
        return (*(f"{name}.new" for name in (*self.trained, *self.state)), "losses")

    def shapes(self, rows: Dimension, samples: Dimension) -> dict[str, tuple[Dimension, ...]]:
        """The shape of each input, in order, for R rows and B samples or for their names."""
        return {name: self._shape(name, rows, samples) for name in self.inputs}

    def examples(self, rows: int, samples: int) -> dict[str, Tensor]:
        """Tensors of zeros for the inputs, in order: to export the step with."""
        return {
            name: torch.zeros(
                [int(n) for n in shape],
                dtype=self.batch[name].dtype if name in self.batch else None,
            )
            for name, shape in self.shapes(rows, samples).items()
        }

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """One step; `inputs` and `outputs` name the tensors."""
        values = dict(zip(self.inputs, inputs, strict=True))
        known = (*self.trained, *self.frozen, *self.batch, "rate")
        parts, losses = self.gradients(*(values[name] for name in known))
        gradients = {name: Gradient(*part) for name, part in zip(self.trained, parts, strict=True)}
        for anchor, name in self.anchors.items():
            distance = values[name] - values[anchor]
            gradients[name] = gradients[name].plus(values["pull"] * distance)
        advanced = self._advance(values, gradients)
        return (*(advanced[name] for name in (*self.trained, *self.state)), losses)

    def _shape(self, name: str, rows: Dimension, samples: Dimension) -> tuple[Dimension, ...]:
        if name in self.batch:
            return self.batch[name].shape(samples)
        if name == "rate":
            return (samples,)
        parameter = {**self.state, **self.anchors}.get(name, name)
        spec = self._specs.get(str(parameter))
        if spec is None:
            return ()
        return (rows, *spec.shape[1:]) if spec.is_table else spec.shape

    def _advance(
        self, values: Mapping[str, Tensor], gradients: Mapping[str, Gradient]
    ) -> dict[str, Tensor]:
        rule = RULES[self.optimizer]
        rates = () if self.scaled else (values["learning_rate"],)
        common, shared = rule.prepare(rates, tuple(values[name] for name in rule.shared))
        advanced = dict(zip(rule.shared, shared, strict=True))
        for name in self.trained:
            slots = [f"{name}.{slot}" for slot in rule.slots]
            state = tuple(values[slot] for slot in slots)
            new = rule.advance(values[name], gradients[name], state, common)
            advanced |= zip((name, *slots), new, strict=True)
        return advanced


@dataclass(frozen=True, slots=True)
class Extent:
    """What a fleet program takes at once.

    Attributes:
        devices: D, at least 1.
        samples: B of each step, at least 2.
    """

    devices: int
    samples: int


class FleetStep(Step):
    """The same step for D devices at once, of which each has everything for itself.

    Inputs and outputs have a leading dimension D but for those in `shared`. Nothing is computed
    across it: what a device gets does not depend on the others. D and B are fixed, because PyTorch
    fixes them anyway when it spreads many a loss over devices; R may be any.

    Attributes:
        extent: D and B.
    """

    def __init__(
        self,
        gradients: fx.GraphModule,
        recommender: Recommender,
        optimizer: Optimizer,
        *,
        extent: Extent,
        places: Mapping[str, str],
    ) -> None:
        super().__init__(gradients, recommender, optimizer, proximal=True, places=places)
        self.extent = extent
        # Spread over devices, a tensor has no size that this operator could ask for.
        for node in gradients.graph.find_nodes(op="call_function", target=_sym_size):
            node.target = _size
        gradients.recompile()

    @property
    def shared(self) -> frozenset[str]:
        """Inputs that are the same for all devices.

        They are the rates, the state that depends on the number of the step alone, and what is
        frozen and no table.
        """
        whole = (name for name in self.frozen if not self._specs[name].is_table)
        counted = (name for name, like in self.state.items() if like is None)
        return frozenset({"pull", "learning_rate", *whole, *counted})

    def shapes(self, rows: Dimension, samples: Dimension) -> dict[str, tuple[Dimension, ...]]:
        """As those of one device, but with D in front, and B as it is fixed."""
        del samples
        devices, single = self.extent.devices, super().shapes(rows, self.extent.samples)
        return {n: shape if n in self.shared else (devices, *shape) for n, shape in single.items()}

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """One step of each device; `inputs` and `outputs` name the tensors."""
        taken = tuple(None if name in self.shared else 0 for name in self.inputs)
        made = tuple(
            None if name.removesuffix(".new") in self.shared else 0 for name in self.outputs
        )
        each: tuple[Tensor, ...] = torch.vmap(super().forward, taken, made)(*inputs)  # type: ignore[arg-type]
        return each


def _size(tensor: Tensor, dimension: int) -> int:
    return tensor.shape[dimension]


def trace_step(
    recommender: Recommender,
    optimizer: Optimizer = Optimizer.SGD,
    *,
    proximal: bool = False,
    fleet: Extent | None = None,
) -> Step:
    """Trace a recommender into one training step.

    Args:
        recommender: the model; it is not changed.
        optimizer: what turns gradients into steps.
        proximal: whether the step pulls the federated parameters back to their start, by the
            gradient of proximal / 2 * |parameter - start|^2 (FedProx: Li et al., MLSys 2020,
            equation 2).
        fleet: for a `FleetStep` of so many devices at once; always with the proximal term.

    Raises:
        RecommenderError: the recommender breaks a rule; or its loss cannot be traced, has a wrong
            shape, leaves a parameter out, changes a buffer, or depends on the number of rows.
    """
    gradients, places = trace_gradients(recommender)
    if fleet is not None:
        return FleetStep(gradients, recommender, optimizer, extent=fleet, places=places)
    return Step(gradients, recommender, optimizer, proximal=proximal, places=places)
