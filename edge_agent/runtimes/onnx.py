"""Stock ONNX Runtime: a program is one graph of standard operators, one call a local update."""

import threading
from collections.abc import Mapping
from pathlib import Path

import onnxruntime

from edge_agent.errors import ProgramError
from edge_agent.runtimes.protocol import Array

__all__ = ["OnnxRuntime"]


class OnnxRuntime:
    """Runs programs on one thread, with one session for each distinct program in the process."""

    name = "onnx"

    def __init__(self) -> None:
        self._programs: dict[str, _OnnxProgram] = {}
        self._lock = threading.Lock()

    def load(self, path: Path, digest: str) -> "_OnnxProgram":
        """Load a program, or return the one already loaded; see ``Runtime.load``."""
        with self._lock:
            if digest not in self._programs:
                self._programs[digest] = _OnnxProgram(path)
            return self._programs[digest]


class _OnnxProgram:
    def __init__(self, path: Path) -> None:
        try:
            self._session = onnxruntime.InferenceSession(
                path, _options(), providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # The engine's exceptions share no public base class.
            raise ProgramError(f"ONNX Runtime refuses {path.name}: {_first_line(error)}") from None
        self._inputs = [node.name for node in self._session.get_inputs()]
        self._outputs = [node.name for node in self._session.get_outputs()]

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run it once; see ``Program.run``."""
        missing = [name for name in self._inputs if name not in inputs]
        if missing:
            raise ProgramError(f"the program needs the inputs {missing}, which nobody gives it")
        try:
            outputs = self._session.run(None, {name: inputs[name] for name in self._inputs})
        except Exception as error:  # As above.
            raise ProgramError(f"ONNX Runtime failed: {_first_line(error)}") from None
        return dict(zip(self._outputs, outputs, strict=True))


def _options() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # The arena keeps what it ever took; a device trains for milliseconds and then waits.
    options.enable_cpu_mem_arena = False
    return options


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
