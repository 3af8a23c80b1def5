"""A small real task: matrix factorisation with a dense bias, written by hand in ONNX.

The agent's tests need a program that runs on the real runtime, but not PyTorch, which builds the
programs that ship; ``tests/export`` proves those.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import parser
from safetensors.numpy import save

from edge_agent.runtimes import ProgramFile
from wire.manifest import (
    BatchKind,
    ContextField,
    FileEntry,
    Manifest,
    ParameterSpec,
    Role,
    task_id,
)
from wire.messages import Announcement
from wire.policy import CodecMode, CodecPolicy, TrainingPolicy

__all__ = ["ITEMS", "TRAINING", "WIDTH", "TinyTask", "assemble", "make_task"]

ITEMS, WIDTH = 60, 4
TRAINING = TrainingPolicy(learning_rate=0.1, epochs=2, batch_size=8, negatives=2, interval_s=10.0)
# Residuals neither age nor are cut, so that a test can account for everything.
CODEC = CodecPolicy(
    mode=CodecMode.TOP_K, bits=2, density=0.3, residual_keep=1.0, residual_bound=1e9
)

UPDATE_PROGRAM = """
<ir_version: 10, opset_import: ["" : 20]>
update (
    float[R, 4] table, float[4] user, float[1] bias, float learning_rate,
    int64[S, B] item, float[S, B] label, float[S, B] weight
) => (float[R, 4] "table.new", float[4] "user.new", float[1] "bias.new", float[S] loss) {
    "table.new", "user.new", "bias.new", loss = Scan <num_scan_inputs = 3, body = step (
        float[R, 4] t, float[4] u, float[1] b, int64[B] i, float[B] y, float[B] w
    ) => (float[R, 4] t2, float[4] u2, float[1] b2, float l) {
        first = Constant <value_ints = [0]> ()
        last = Constant <value_ints = [1]> ()
        rows = Gather (t, i)
        dot = MatMul (rows, u)
        z = Add (dot, b)
        p = Sigmoid (z)
        miss = Sub (p, y)
        scaled = Mul (miss, w)
        g = Mul (scaled, learning_rate)
        gu = MatMul (g, rows)
        u2 = Sub (u, gu)
        gb = ReduceSum (g, first)
        b2 = Sub (b, gb)
        gc = Unsqueeze (g, last)
        gt = Mul (gc, u)
        down = Neg (gt)
        at = Unsqueeze (i, last)
        t2 = ScatterND <reduction = "add"> (t, at, down)
        squared = Mul (miss, miss)
        weighted = Mul (squared, w)
        l = ReduceSum <keepdims = 0> (weighted)
    }> (table, user, bias, item, label, weight)
}
"""
SCORER_PROGRAM = """
<ir_version: 10, opset_import: ["" : 20]>
score (float[C, 4] table, float[4] user, float[1] bias) => (float[C] score) {
    dot = MatMul (table, user)
    score = Add (dot, bias)
}
"""


@dataclass(frozen=True)
class TinyTask:
    """A task and every blob that an aggregator would serve for it."""

    manifest: Manifest
    raw: bytes
    blobs: dict[str, bytes]
    task: str
    start: Mapping[str, NDArray[np.float32]]

    def write_program(self, folder: Path) -> dict[str, ProgramFile]:
        """Write the parts of the ``onnx`` program as a device keeps them, named by digest."""
        files = {}
        for part, entry in self.manifest.program("onnx").items():
            files[part] = ProgramFile(folder / entry.sha256, entry.sha256)
            files[part].path.write_bytes(self.blobs[entry.sha256])
        return files

    def announce(
        self,
        version: int = 0,
        *,
        paused: bool = False,
        training: TrainingPolicy = TRAINING,
        codec: CodecPolicy = CODEC,
        parameters: dict[str, NDArray[np.float32]] | None = None,
    ) -> Announcement:
        """Announce a version; new parameters become a blob."""
        initial = self.manifest.file(self.manifest.initial)
        blob = self.blobs[initial.sha256] if parameters is None else _safetensors(parameters)
        sha256 = hashlib.sha256(blob).hexdigest()
        self.blobs[sha256] = blob
        return Announcement(
            task=self.task,
            version=version,
            sha256=sha256,
            size_bytes=len(blob),
            paused=paused,
            training=training,
            codec=codec,
        )

    def parameters(self) -> dict[str, NDArray[np.float32]]:
        """Version 0 and the frozen parameters."""
        private = {spec.name for spec in self.manifest.private_parameters}
        return {name: np.array(self.start[name]) for name in self.start if name not in private}

    def private(self) -> dict[str, NDArray[np.float32]]:
        """The start of the private parameters."""
        names = [spec.name for spec in self.manifest.private_parameters]
        return {name: np.array(self.start[name]) for name in names}


def make_task(name: str = "tiny", update_program: str = UPDATE_PROGRAM) -> TinyTask:
    """Build the task; another name gives another task."""
    rng = np.random.default_rng(0)
    return assemble(
        name,
        BatchKind.POINTWISE,
        update_program,
        SCORER_PROGRAM,
        {
            "table": (Role.ROWS, rng.normal(0.0, 0.3, (ITEMS, WIDTH))),
            "user": (Role.PRIVATE, np.full(WIDTH, 0.1)),
            "bias": (Role.DENSE, np.zeros(1)),
        },
    )


def assemble(
    name: str,
    batch: BatchKind,
    update_program: str,
    scorer_program: str,
    parameters: Mapping[str, tuple[Role, NDArray[np.float64]]],
    *,
    context: tuple[ContextField, ...] = (),
    history: int = 0,
) -> TinyTask:
    """Put a task together from its programs and the start of its parameters."""
    roles = {parameter: role for parameter, (role, _) in parameters.items()}
    start = {parameter: value.astype(np.float32) for parameter, (_, value) in parameters.items()}
    files = {
        "programs/update.onnx": _program(update_program),
        "scorer.onnx": _program(scorer_program),
    }
    for path, portion in (
        ("parameters", (Role.DENSE, Role.ROWS)),
        ("private", (Role.PRIVATE,)),
        ("frozen", (Role.FROZEN, Role.FROZEN_ROWS)),
    ):
        held = {parameter: start[parameter] for parameter in start if roles[parameter] in portion}
        files[f"{path}.safetensors"] = _safetensors(held)
    entries = {path: hashlib.sha256(blob).hexdigest() for path, blob in files.items()}
    manifest = Manifest(
        name=name,
        recommender="test",
        items=ITEMS,
        batch=batch,
        context=context,
        history=history,
        parameters=tuple(
            ParameterSpec(parameter, roles[parameter], value.shape)
            for parameter, value in start.items()
        ),
        programs={"onnx": {"update": "programs/update.onnx", "scorer": "scorer.onnx"}},
        initial="parameters.safetensors",
        private="private.safetensors",
        frozen="frozen.safetensors",
        files=tuple(
            FileEntry(path, entries[path], len(blob)) for path, blob in sorted(files.items())
        ),
        training=TRAINING,
        codec=CODEC,
    )
    raw = manifest.to_json()
    blobs = {entries[path]: blob for path, blob in files.items()}
    return TinyTask(manifest, raw, blobs, task_id(raw), start)


def _program(text: str) -> bytes:
    model = parser.parse_model(text)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _safetensors(tensors: dict[str, NDArray[np.float32]]) -> bytes:
    return save(tensors)
