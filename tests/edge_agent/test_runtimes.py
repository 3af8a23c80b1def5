"""Runtimes by name, and what stock ONNX Runtime does with good and bad programs."""

import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from edge_agent.errors import ProgramError, RuntimeUnavailableError
from edge_agent.runtimes import Program, ProgramFile, open_runtime, registry
from tests.edge_agent.tiny_task import TinyTask


def open_scorer(root: Path, task: TinyTask) -> Program:
    return open_runtime("onnx").open_scorer(task.manifest, task.write_program(root))


def test_an_unknown_runtime_is_named() -> None:
    with pytest.raises(RuntimeUnavailableError, match="runtime is 'abacus'; expected one of onnx"):
        open_runtime("abacus")


def test_a_runtime_that_is_not_installed_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> object:
        if name == "edge_agent.runtimes.onnx":
            raise ModuleNotFoundError("No module named 'onnxruntime'")
        return import_module(name)

    monkeypatch.setattr(registry, "import_module", missing)
    with pytest.raises(RuntimeUnavailableError, match=r"pip install 'rivulet\[agent\]'"):
        open_runtime("onnx")


def test_a_program_is_loaded_once(tmp_path: Path, task: TinyTask) -> None:
    runtime = open_runtime("onnx")
    files = task.write_program(tmp_path)
    first = runtime.open_scorer(task.manifest, files)
    files["scorer"].path.unlink()
    assert runtime.open_scorer(task.manifest, files) is first


def test_inputs_that_the_program_does_not_know_are_ignored(tmp_path: Path, task: TinyTask) -> None:
    scorer = open_scorer(tmp_path, task)
    inputs = {
        "table": np.eye(4, dtype=np.float32),
        "user": np.arange(4, dtype=np.float32),
        "bias": np.ones(1, np.float32),
        "another": np.ones(1, np.float32),
    }
    assert scorer.run(inputs)["score"].tolist() == [1.0, 2.0, 3.0, 4.0]


def test_a_missing_input_or_a_wrong_shape_is_a_program_error(
    tmp_path: Path, task: TinyTask
) -> None:
    scorer = open_scorer(tmp_path, task)
    inputs = {"table": np.eye(4, dtype=np.float32), "user": np.ones(4, np.float32)}
    with pytest.raises(ProgramError, match=r"needs the inputs \['bias'\]"):
        scorer.run(inputs)
    with pytest.raises(ProgramError, match="ONNX Runtime failed"):
        scorer.run({**inputs, "bias": np.ones((2, 2), np.float32)})


def test_what_is_no_program_is_refused(tmp_path: Path, task: TinyTask) -> None:
    file = tmp_path / "update.onnx"
    file.write_bytes(b"not a graph")
    files = {"update": ProgramFile(file, "0" * 64)}
    with pytest.raises(ProgramError, match=r"ONNX Runtime refuses update\.onnx"):
        open_runtime("onnx").open_update(task.manifest, files)
    with pytest.raises(ProgramError, match="no part 'scorer'"):
        open_runtime("onnx").open_scorer(task.manifest, files)


def test_the_engine_reports_nothing_to_its_vendor(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if "TELEMETRY" not in name}
    environment |= {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    code = "from edge_agent.runtimes import open_runtime; open_runtime('onnx')"
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    assert list(tmp_path.iterdir()) == []
