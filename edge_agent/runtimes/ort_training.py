"""ONNX Runtime Training: its own artifacts, of static shapes, and a call or two for each step.

`export.ort_training` says what is in the files. This goes through the bindings beneath
``onnxruntime.training``, which would import PyTorch and take 230 MB for it. They will not change:
release 1.19.2 is the last one.
"""

import re
import threading
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from onnxruntime.capi import _pybind_state as engine

from edge_agent.errors import ProgramError
from edge_agent.runtimes.onnx import OnnxRuntime, first_line, session_options
from edge_agent.runtimes.protocol import Array, Program, ProgramFile, check_given, part
from edge_agent.runtimes.static_shapes import clip_delta, cut_tables, fill_batches, fill_tables
from wire.delta import FloatArray
from wire.manifest import Manifest

__all__ = ["OrtTrainingRuntime"]

if not hasattr(engine, "CheckpointState"):
    raise ModuleNotFoundError(
        "the onnxruntime here cannot train, and takes the place of the one that can: this needs "
        "an environment of its own",
        name="onnxruntime",
    )

PARTS = ("training", "proximal", "optimizer", "checkpoint")

_DEVICE = engine.OrtDevice(engine.OrtDevice.cpu(), engine.OrtDevice.default_memory(), 0)


class OrtTrainingRuntime:
    """Trains on one thread.

    The engine cannot set an optimiser back to zero. So each local update loads the program's files
    anew, which takes some milliseconds; between updates nothing stays in memory.
    """

    name = "ort-training"

    def __init__(self) -> None:
        self._updates: dict[object, _Update] = {}
        self._scorers = OnnxRuntime()
        self._lock = threading.Lock()

    def open_update(self, manifest: Manifest, files: Mapping[str, ProgramFile]) -> Program:
        """See ``Runtime.open_update``; the files must stay where they are."""
        parts = {name: part(files, name) for name in PARTS}
        digests = tuple(file.digest for file in parts.values())
        key = (digests, manifest.parameters, manifest.capacity)
        with self._lock:
            if key not in self._updates:
                self._updates[key] = _Update(manifest, parts)
            return self._updates[key]

    def open_scorer(self, manifest: Manifest, files: Mapping[str, ProgramFile]) -> Program:
        """See ``Runtime.open_scorer``."""
        return self._scorers.open_scorer(manifest, files)


class _Update:
    def __init__(self, manifest: Manifest, files: Mapping[str, ProgramFile]) -> None:
        if manifest.capacity is None:
            raise ProgramError("manifest.capacity is missing; a program for ort-training has one")
        self.capacity = manifest.capacity
        self._files = files
        trained = (*manifest.federated, *manifest.private_parameters)
        self._trained = {spec.name for spec in trained}
        self._parameters = {spec.name for spec in manifest.parameters}
        self._tables = {spec.name for spec in manifest.parameters if spec.is_table}
        self._starts = {f"{spec.name}.start": spec.name for spec in manifest.federated}
        # Now, so that a file that is no good is refused before anyone trains.
        with _Session(files, "training") as session:
            if session.names != self._trained:
                raise ProgramError(
                    f"the program trains {sorted(session.names)}; "
                    f"the manifest says {sorted(self._trained)}"
                )

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run it once; see ``Program.run``."""
        check_given(inputs, ["learning_rate", "proximal", "clip", "weight", *self._trained])
        pulled = float(inputs["proximal"]) != 0.0
        with _Session(self._files, "proximal" if pulled else "training") as session:
            return self._train(session, inputs)

    def _train(self, session: "_Session", inputs: Mapping[str, Array]) -> dict[str, Array]:
        given = [name for name in session.inputs if name not in self._starts]
        check_given(inputs, given)
        batches = {name for name in given if name not in self._parameters | {"proximal"}}
        tables = self._tables.intersection([*self._trained, *given])
        filled, rows = fill_tables(inputs, tables, self.capacity)
        filled = fill_batches(filled, batches, self.capacity, rows)
        filled |= {start: filled[name] for start, name in self._starts.items()}
        session.begin(
            {name: filled[name] for name in self._trained}, float(inputs["learning_rate"])
        )
        losses = [
            session.step({n: filled[n][at] if n in batches else filled[n] for n in session.inputs})
            for at in range(len(inputs["weight"]))
        ]
        ends = cut_tables(session.parameters(), tables, rows)
        start, moved = (
            {name: np.asarray(of[name], np.float32) for name in self._starts.values()}
            for of in (inputs, ends)
        )
        ends |= clip_delta(start, moved, float(inputs["clip"]))
        new = {f"{name}.new": end for name, end in ends.items()}
        return {**new, "loss": np.array(losses, np.float32)}


class _Session:
    """A training model and its optimiser, with parameters and a state of their own.

    Attributes:
        inputs: the names of what a step takes, in order.
        names: those of the trained parameters.
    """

    def __init__(self, files: Mapping[str, ProgramFile], model: str) -> None:
        self._state: Any = None
        self._module: Any = None
        self._optimizer: Any = None
        paths = {name: str(file.path) for name, file in files.items()}
        options = session_options()
        try:
            self._state = engine.load_checkpoint(paths["checkpoint"])
            self._module = engine.Module(paths[model], self._state, None, _DEVICE, options)
            # The checkpoint has no values. Until it gets some all at once, it takes none by name.
            zeros = np.zeros(self._module.get_parameters_size(False), np.float32)
            self._module.copy_buffer_to_parameters(_tensor(zeros), False)
            self._optimizer = engine.Optimizer(paths["optimizer"], self._state, _DEVICE, options)
        except Exception as error:  # The engine's exceptions share no public base class.
            self._close()
            raise ProgramError(
                f"ONNX Runtime Training refuses the program: {_said(error)}"
            ) from None
        self.inputs: list[str] = self._module.input_names(True)
        self.names: set[str] = set(self._state.parameter_names())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._close()

    def _close(self) -> None:
        # In this order: the other two write to the state when they go.
        self._optimizer = None
        self._module = None
        self._state = None

    def begin(self, parameters: Mapping[str, Array], learning_rate: float) -> None:
        """Set every trained parameter, and the learning rate."""
        try:
            for name, value in parameters.items():
                self._state.copy_parameter_from(name, _tensor(value))
            self._optimizer.set_learning_rate(learning_rate)
        except Exception as error:  # As above.
            raise _failed(error) from None

    def step(self, inputs: Mapping[str, Array]) -> float:
        """Train one step; returns the loss before it."""
        outputs = engine.OrtValueVector()
        try:
            self._module.train_step([inputs[name] for name in self.inputs], outputs)
            self._optimizer.optimizer_step()
            self._module.lazy_reset_grad()
        except Exception as error:  # As above.
            raise _failed(error) from None
        _objective, loss = outputs
        return float(loss.numpy())

    def parameters(self) -> dict[str, FloatArray]:
        """The trained parameters as they are now."""
        # Copied, because what the engine gives is its own memory.
        return {name: np.array(self._state.get_parameter(name).data.numpy()) for name in self.names}


def _tensor(array: Array) -> Any:
    """An array's memory as a tensor, for as long as there is the array."""
    return engine.OrtValue.ortvalue_from_numpy(array, _DEVICE)


def _failed(error: Exception) -> ProgramError:
    return ProgramError(f"ONNX Runtime Training failed: {_said(error)}")


def _said(error: Exception) -> str:
    """What the engine says of an error, without where in its source."""
    return re.sub(r"^.*(\[ONNXRuntimeError\] : \d+ : \w+ : | was false\. )", "", first_line(error))
