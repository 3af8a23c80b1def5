"""ExecuTorch: a program is one training step of static shapes, looped over here.

`export.executorch` says what the program's methods take and return. The Python binding needs
PyTorch, which is far too heavy for a small device; there the same program runs from C++, Kotlin or
Swift. This module is for testing it, and for gateways that have PyTorch anyway.
"""

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# The extension module itself. The public one around it imports the whole compiler: three times the
# time to start and half as much memory again.
import executorch.extension.pybindings._C as _C
import numpy as np
import torch

from edge_agent.errors import ProgramError
from edge_agent.runtimes.protocol import Array, ProgramFile, part
from edge_agent.runtimes.static_shapes import clip_delta, cut_tables, fill_batches, fill_tables
from wire.manifest import Capacity, Manifest

__all__ = ["ExecutorchRuntime"]

_DTYPES = {4: torch.int64, 6: torch.float32}
"""What ExecuTorch's ScalarType numbers mean."""


class ExecutorchRuntime:
    """Runs programs on one thread, and loads each distinct one once in the process."""

    name = "executorch"

    def __init__(self) -> None:
        self._updates: dict[str, _Update] = {}
        self._scorers: dict[str, _Scorer] = {}
        self._lock = threading.Lock()
        # The pool belongs to the process, and has a thread for each core when nobody says so.
        _C._unsafe_reset_threadpool(1)

    def open_update(self, manifest: Manifest, files: Mapping[str, ProgramFile]) -> "_Update":
        """See ``Runtime.open_update``."""
        del manifest
        file = part(files, "update")
        with self._lock:
            if file.digest not in self._updates:
                self._updates[file.digest] = _Update(_File(file.path))
            return self._updates[file.digest]

    def open_scorer(self, manifest: Manifest, files: Mapping[str, ProgramFile]) -> "_Scorer":
        """See ``Runtime.open_scorer``."""
        del manifest
        file = part(files, "scorer")
        with self._lock:
            if file.digest not in self._scorers:
                self._scorers[file.digest] = _Scorer(_File(file.path))
            return self._scorers[file.digest]


class _File:
    """A program file: its methods, and what it says of itself."""

    def __init__(self, path: Path) -> None:
        self._name = path.name
        verification = _C.Verification.InternalConsistency
        try:
            self._raw = path.read_bytes()
            self._program = _C._load_program_from_buffer(
                self._raw, program_verification=verification
            )
        except (OSError, RuntimeError) as error:
            raise self._refused(error) from None

    def method(self, name: str, inputs: Sequence[str]) -> "_Method":
        """A method by its name; ``inputs`` are those of its inputs."""
        try:
            return _Method(self, self._program.load_method(name), inputs)
        except RuntimeError as error:
            raise self._refused(error) from None

    def names(self, constant: str) -> tuple[str, ...]:
        """The names in one of its texts."""
        return tuple(self._constant(constant).split())

    def number(self, constant: str) -> int:
        """One of its numbers."""
        return int(self._constant(constant))

    def _constant(self, name: str) -> Any:
        try:
            (value,) = self._program.load_method(name).call([])
        except RuntimeError as error:
            raise self._refused(error) from None
        return value

    def _refused(self, error: Exception) -> ProgramError:
        return ProgramError(f"ExecuTorch refuses {self._name}: {error}")


class _Method:
    """A method as a function of named tensors."""

    def __init__(self, file: _File, method: Any, inputs: Sequence[str]) -> None:
        self._method, self._inputs = method, tuple(inputs)
        # The engine reads from the file's bytes as long as the method lives, without holding them.
        self._file = file
        meta = method.method_meta()
        self._forms = {
            name: (tuple(meta.input_tensor_meta(at).sizes()), meta.input_tensor_meta(at).dtype())
            for at, name in enumerate(self._inputs)
        }

    def zeros(self, name: str) -> torch.Tensor:
        """Zeros of the form of an input."""
        shape, dtype = self._forms[name]
        return torch.zeros(shape, dtype=_DTYPES[dtype])

    def tensor(self, name: str, array: Array, *, steps: bool = False) -> torch.Tensor:
        """A copy of an array as the input of that name, or with ``steps`` as that of each step.

        Raises:
            ProgramError: it has another shape or dtype than the input.
        """
        shape, dtype = self._forms[name]
        tensor = torch.tensor(array)
        found = tensor.shape[1:] if steps else tensor.shape
        if tuple(found) != shape or tensor.dtype is not _DTYPES[dtype]:
            raise ProgramError(
                f"{name} is {tensor.dtype} {list(found)}; "
                f"the program takes {_DTYPES[dtype]} {list(shape)}"
            )
        return tensor

    def __call__(self, values: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
        """Its results, in memory of their own."""
        try:
            outputs: list[torch.Tensor] = self._method.call([values[n] for n in self._inputs])
        except RuntimeError as error:
            raise ProgramError(f"ExecuTorch failed: {error}") from None
        return outputs


class _Update:
    def __init__(self, file: _File) -> None:
        inputs, proximal_inputs = file.names("inputs"), file.names("proximal_inputs")
        self._plain = file.method("forward", inputs)
        self._proximal = file.method("proximal", proximal_inputs)
        self._tables, self._samples = file.names("tables"), file.names("samples")
        self._state = file.names("state")
        *carried, _loss = file.names("outputs")
        self._carried = [name.removesuffix(".new") for name in carried]
        *starts, _proximal = proximal_inputs[len(inputs) :]
        self._starts = {start: start.removesuffix(".start") for start in starts}
        self._given = {*inputs, "proximal", "clip"}.difference(self._state)
        self.capacity = Capacity(file.number("rows"), file.number("batch"))
        self._lock = threading.Lock()

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run it once; see ``Program.run``."""
        _check_given(inputs, self._given)
        filled, rows = fill_tables(inputs, self._tables, self.capacity)
        filled = fill_batches(filled, self._samples, self.capacity, rows)
        with self._lock:
            carried, losses = self._train(filled)
        names = [name for name in self._carried if name not in self._state]
        ends = cut_tables({name: carried[name].numpy() for name in names}, self._tables, rows)
        start, moved = (
            {name: np.asarray(of[name], np.float32) for name in self._starts.values()}
            for of in (inputs, ends)
        )
        ends |= clip_delta(start, moved, float(inputs["clip"]))
        new = {f"{name}.new": end for name, end in ends.items()}
        return {**new, "loss": np.array(losses, np.float32)}

    def _train(self, inputs: Mapping[str, Array]) -> tuple[dict[str, torch.Tensor], list[float]]:
        """What the last step carries on, and the loss of each."""
        pulled = float(inputs["proximal"]) != 0.0
        method = self._proximal if pulled else self._plain
        given = self._given.difference(self._samples, ["clip"], () if pulled else ["proximal"])
        values = {name: method.tensor(name, inputs[name]) for name in given}
        values |= {name: method.zeros(name) for name in self._state}
        if pulled:
            values |= {start: values[name] for start, name in self._starts.items()}
        batches = {name: method.tensor(name, inputs[name], steps=True) for name in self._samples}
        losses = []
        for step in range(len(inputs["weight"])):
            values |= {name: batch[step] for name, batch in batches.items()}
            *carried, loss = method(values)
            values |= zip(self._carried, carried, strict=True)
            losses.append(loss.item())
        return values, losses


class _Scorer:
    def __init__(self, file: _File) -> None:
        self._inputs, self._tables = file.names("inputs"), file.names("tables")
        self._score = file.method("forward", self._inputs)
        self.capacity = Capacity(file.number("rows"), 1)
        self._lock = threading.Lock()

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run it once; see ``Program.run``."""
        _check_given(inputs, self._inputs)
        filled, rows = fill_tables(inputs, self._tables, self.capacity)
        values = {name: self._score.tensor(name, filled[name]) for name in self._inputs}
        with self._lock:
            (score,) = self._score(values)
        return {"score": score.numpy()[:rows]}


def _check_given(inputs: Mapping[str, Array], names: Sequence[str] | set[str]) -> None:
    missing = sorted(set(names).difference(inputs))
    if missing:
        raise ProgramError(f"the program needs the inputs {missing}, which nobody gives it")
