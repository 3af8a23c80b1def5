"""Stock ONNX Runtime: a program is one graph of standard operators, one call a local update."""

import os
import threading
from collections.abc import Mapping
from pathlib import Path

# From 1.32 on its wheels report the process to their vendor on import, unless this is set before.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime

from edge_agent.errors import ProgramError
from edge_agent.runtimes.protocol import Array, ProgramFile, check_given, part
from wire.manifest import Capacity, Manifest

__all__ = ["OnnxRuntime", "first_line", "session_options"]


class OnnxRuntime:
    """Runs programs on one thread, with one session for each distinct program in the process."""

    name = "onnx"

    def __init__(self) -> None:
        self._programs: dict[str, _OnnxProgram] = {}
        self._lock = threading.Lock()

    def open_update(self, manifest: Manifest, files: Mapping[str, ProgramFile]) -> "_OnnxProgram":
        """See ``Runtime.open_update``."""
        del manifest
        return self._load(part(files, "update"))

    def open_scorer(self, manifest: Manifest, files: Mapping[str, ProgramFile]) -> "_OnnxProgram":
        """See ``Runtime.open_scorer``."""
        del manifest
        return self._load(part(files, "scorer"))

    def _load(self, file: ProgramFile) -> "_OnnxProgram":
        with self._lock:
            if file.digest not in self._programs:
                self._programs[file.digest] = _OnnxProgram(file.path)
            return self._programs[file.digest]


class _OnnxProgram:
    capacity: Capacity | None = None

    def __init__(self, path: Path) -> None:
        try:
            self._session = onnxruntime.InferenceSession(
                path, session_options(), providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # The engine's exceptions share no public base class.
            raise ProgramError(f"ONNX Runtime refuses {path.name}: {first_line(error)}") from None
        self._inputs = [node.name for node in self._session.get_inputs()]
        self._outputs = [node.name for node in self._session.get_outputs()]

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run it once; see ``Program.run``."""
        check_given(inputs, self._inputs)
        try:
            outputs = self._session.run(None, {name: inputs[name] for name in self._inputs})
        except Exception as error:  # As above.
            raise ProgramError(f"ONNX Runtime failed: {first_line(error)}") from None
        return dict(zip(self._outputs, outputs, strict=True))


def session_options() -> onnxruntime.SessionOptions:
    """One thread, errors only, and no memory kept."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # The arena keeps what it ever took; a device trains for milliseconds and then waits.
    options.enable_cpu_mem_arena = False
    return options


def first_line(error: Exception) -> str:
    """What the engine says of an error, without its pages on where."""
    return (str(error).splitlines() or [type(error).__name__])[0]
