"""Many devices trained in one call: a fleet program, and how their arrays go in and come out.

Batches, tables and private parameters of devices are stacked and filled up with zeros to one shape.
That changes nothing: a row of zeros that no sample names has no gradient, and a sample of weight 0
adds nothing to one. A step of nothing but padding leaves plain SGD where it is; other optimisers
would go on, so with them devices go together only where they have as many steps.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby, islice
from typing import Any

import numpy as np
import onnxruntime

from edge_agent.errors import ProgramError
from edge_agent.local_update import Training
from edge_agent.runtimes.onnx import first_line, session_options
from edge_agent.runtimes.protocol import Array
from edge_agent.runtimes.static_shapes import clip_delta
from wire.manifest import Manifest, Optimizer

__all__ = ["FleetProgram"]

STEERING = ("learning_rate", "proximal")


class FleetProgram:
    """A loaded fleet program, see ``export.training_graph``.

    Args:
        manifest: of the task.
        model: the content of the ONNX file.

    Raises:
        ProgramError: ONNX Runtime refuses it.
    """

    def __init__(self, manifest: Manifest, model: bytes) -> None:
        options = session_options()
        # Here the same large tables are asked for again and again; without the arena each of them
        # would be pages fresh from the kernel.
        options.enable_cpu_mem_arena = True
        try:
            self._session = onnxruntime.InferenceSession(
                model, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # The engine's exceptions share no public base class.
            raise ProgramError(f"ONNX Runtime refuses it: {first_line(error)}") from None
        self._shapes = {node.name: node.shape for node in self._session.get_inputs()}
        self._outputs = [node.name for node in self._session.get_outputs()]
        _, self.devices, self.samples = self._shapes["weight"]
        self._any_steps = manifest.optimizer is Optimizer.SGD
        self._federated = [spec.name for spec in manifest.federated]

    def takes(self, training: Training) -> bool:
        """Whether its steps have no more samples than the program."""
        return bool(training.others["weight"].shape[1] <= self.samples)

    def groups(self, trainings: Sequence[Training]) -> Iterator[list[int]]:
        """Positions of those that go well together, in groups of at most ``devices``.

        Those of about the same size do, since little is to be filled up then.
        """
        order = sorted(range(len(trainings)), key=lambda at: self._likeness(trainings[at]))
        for _, alike in groupby(order, key=lambda at: self._likeness(trainings[at])[0]):
            while group := list(islice(alike, self.devices)):
                yield group

    def run(self, trainings: Sequence[Training]) -> list[dict[str, Array]]:
        """Run the local updates of one of the ``groups``.

        Returns:
            For each the outputs that the task's own program would give.

        Raises:
            ProgramError: the engine failed.
        """
        given = [training.inputs for training in trainings]
        inputs = {name: self._stacked(name, given) for name in self._shapes}
        try:
            outputs = self._session.run(self._outputs, inputs)
        except Exception as error:  # As above.
            raise ProgramError(f"ONNX Runtime failed: {first_line(error)}") from None
        named = dict(zip(self._outputs, outputs, strict=True))
        return [self._own(named, place, each) for place, each in enumerate(given)]

    def _likeness(self, training: Training) -> tuple[tuple[float, ...], int, int]:
        """What must be equal to go together, then what should be about the same."""
        steps = len(training.others["weight"])
        rates = [float(training.others[name]) for name in STEERING]
        return (*rates, 0 if self._any_steps else steps), steps, len(training.rows)

    def _stacked(self, name: str, given: Sequence[Mapping[str, Array]]) -> Array:
        shape, arrays = self._shapes[name], [inputs[name] for inputs in given]
        first = arrays[0]
        if len(shape) == first.ndim:
            # A rate, or what is frozen and no table: the same for all.
            return first
        extent = [max(sizes) for sizes in zip(*(array.shape for array in arrays), strict=True)]
        places = 1 if shape[0] == "S" else 0
        if places:
            extent[1] = self.samples
        extent.insert(places, self.devices)
        stacked = np.zeros(extent, first.dtype)
        for place, array in enumerate(arrays):
            own = np.moveaxis(stacked, places, 0)[place]
            own[tuple(map(slice, array.shape))] = array
        return stacked

    def _own(
        self, outputs: Mapping[str, Array], place: int, given: Mapping[str, Array]
    ) -> dict[str, Array]:
        """One device's part, without what was filled up, and clipped."""
        steps = len(given["weight"])
        own: dict[str, Any] = {"loss": outputs["loss"][:steps, place].copy()}
        for name in self._outputs:
            if name != "loss":
                shape = given[name.removesuffix(".new")].shape
                own[name] = outputs[name][place][tuple(map(slice, shape))].copy()
        clip = float(given["clip"])
        if np.isfinite(clip):
            start: dict[str, Any] = {name: given[name] for name in self._federated}
            new = {name: own[f"{name}.new"] for name in self._federated}
            own |= {f"{n}.new": value for n, value in clip_delta(start, new, clip).items()}
        return own
