"""Where there is no ONNX Runtime Training, what asks for it says how to get it."""

import sys

import pytest
from onnxruntime.capi import _pybind_state as engine

from edge_agent.errors import RuntimeUnavailableError
from edge_agent.runtimes import open_runtime
from export.errors import ExportError
from export.ort_training import ort_training_programs
from tests.export.small_recommenders import SMALL
from wire.manifest import Capacity, Optimizer


def test_the_runtime_names_its_extra_and_wants_an_environment_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(engine, "CheckpointState", raising=False)
    monkeypatch.delitem(sys.modules, "edge_agent.runtimes.ort_training", raising=False)
    message = r"environment of its own\); install it with: pip install 'rivulet\[ort-training\]'"
    with pytest.raises(RuntimeUnavailableError, match=message):
        open_runtime("ort-training")


def test_the_exporter_names_the_extras(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime.training", None)
    message = r"environment of its own: pip install 'rivulet\[export,ort-training\]'"
    with pytest.raises(ExportError, match=message):
        ort_training_programs(SMALL["mf"](), Optimizer.SGD, Capacity(4, 4))
