"""What the exporter makes for ONNX Runtime Training, and what it refuses."""

import hashlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor

from export.errors import ExportError, RecommenderError
from export.ort_training import ort_training_programs
from export.recommender import Recommender
from tests.export.probe import Loss, Probe, good, logit, place
from tests.export.small_recommenders import SMALL
from wire.bundle import Bundle
from wire.manifest import Capacity, Optimizer

pytest.importorskip(
    "onnxruntime.training",
    reason="ONNX Runtime Training replaces ONNX Runtime: run in an environment of its own",
)

CAPACITY = Capacity(12, 6)
# The optimizer is a single operator of the engine's own; a scorer runs on any.
OPSETS = {
    "training": {"": 20, "com.microsoft": 1},
    "proximal": {"": 20, "com.microsoft": 1},
    "optimizer": {"com.microsoft": 1},
    "scorer": {"": 20},
}


def build(recommender: Recommender, optimizer: Optimizer = Optimizer.SGD) -> dict[str, bytes]:
    return ort_training_programs(recommender, optimizer, CAPACITY)


def test_the_models_load_into_the_last_release_and_say_what_they_take(
    make_bundle: Callable[[str, Optimizer], Bundle],
) -> None:
    bundle = make_bundle("two_tower", Optimizer.ADAM)
    files = {p: bundle.path(e) for p, e in bundle.manifest.program("ort-training").items()}
    assert files.keys() == {"training", "proximal", "optimizer", "checkpoint", "scorer"}
    models = {part: onnx.load(files[part]) for part in OPSETS}
    for part, opsets in OPSETS.items():
        assert models[part].ir_version == 10
        assert {o.domain: o.version for o in models[part].opset_import} == opsets
    training, proximal = models["training"], models["proximal"]
    plain, pulled = (
        {info.name for info in model.graph.input if "." not in info.name or ".start" in info.name}
        for model in (training, proximal)
    )
    batch = {"positive", "negative", "history", "present", "weight"}
    assert batch | {"features"} <= plain
    dense = [name for name, _ in SMALL["two_tower"]().named_parameters()]
    assert pulled - plain == {"proximal", *(f"{name}.start" for name in dense)}
    assert [info.name for info in training.graph.output][1] == "loss"
    # Without values: a device brings its own.
    assert files["checkpoint"].stat().st_size < 1_000


BUILD_ALOUD = """
import hashlib
import logging
from export.ort_training import ort_training_programs
from export.recommenders import RECOMMENDERS
from wire.bundle import Bundle
from wire.manifest import Capacity, Optimizer
model = RECOMMENDERS["mf"](items=40, dimension=4, bias=True, seed=7)
programs = ort_training_programs(model, Optimizer.ADAM, Capacity(12, 6))
assert not logging.root.handlers
print({part: hashlib.sha256(raw).hexdigest() for part, raw in programs.items()})
"""


@pytest.mark.slow
def test_bytes_depend_on_the_model_alone_and_compiling_says_nothing() -> None:
    programs = build(SMALL["mf"](), Optimizer.ADAM)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", BUILD_ALOUD],
        env={"PYTHONHASHSEED": "1"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    digests = {part: hashlib.sha256(raw).hexdigest() for part, raw in programs.items()}
    assert done.stdout == f"{digests}\n"


@pytest.mark.parametrize("optimizer", [Optimizer.MOMENTUM, Optimizer.ADAGRAD])
def test_an_optimiser_that_the_runtime_lacks_is_named(optimizer: Optimizer) -> None:
    message = f"no optimiser '{optimizer.value}', only sgd and adam"
    with pytest.raises(ExportError, match=message):
        build(SMALL["mf"](), optimizer)


def peaks(probe: Probe, item: Tensor, label: Tensor) -> Tensor:
    highest = probe.rows[item].amax(1)  # here
    return (highest - label) * logit(probe, item)


def bends(probe: Probe, item: Tensor, label: Tensor) -> Tensor:
    return torch.nn.functional.elu(logit(probe, item)) - label  # here


@pytest.mark.parametrize(("loss", "operator"), [(peaks, "ReduceMax"), (bends, "Elu")])
def test_an_operator_without_a_gradient_is_named_with_its_line(loss: Loss, operator: str) -> None:
    with pytest.raises(ExportError) as raised:
        build(Probe(loss))
    said = str(raised.value)
    assert f"no gradient for {operator}{place(loss)}" in said
    assert "leave out the runtime ort-training" in said


def holds(probe: Probe, item: Tensor, label: Tensor) -> Tensor:
    return good(probe, item, label) * torch.exp(logit(probe, item).detach())


def test_a_gradient_that_is_not_pytorchs_is_refused() -> None:
    with pytest.raises(ExportError, match=r"gets the gradient of '[\w.]+' wrong, by \d"):
        build(Probe(holds))


def flips(probe: Probe, item: Tensor, label: Tensor) -> Tensor:
    return (probe.rows[item].flip(1) @ probe.user + logit(probe, item)) * label


def test_a_gradient_that_does_not_run_is_refused() -> None:
    with pytest.raises(ExportError, match=r"cannot run the loss \(.*SliceGrad"):
        build(Probe(flips))


def test_what_no_runtime_can_train_is_refused_first() -> None:
    def counts(probe: Probe, item: Tensor, label: Tensor) -> Tensor:
        return good(probe, item, label) / len(probe.rows)

    with pytest.raises(RecommenderError, match="depends on the number of rows"):
        build(Probe(counts))


def test_a_file_that_the_engine_would_delete_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("temp.onnx").write_text("mine")
    with pytest.raises(ExportError, match=r"deletes temp\.onnx in the current folder"):
        build(SMALL["mf"]())
    assert Path("temp.onnx").read_text() == "mine"
