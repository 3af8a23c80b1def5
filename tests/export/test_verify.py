"""`rivulet-export verify` finds a program that does not train as PyTorch does."""

import json
import math
import sys
from pathlib import Path

import pytest

from export.build import build_bundle
from export.command import main
from export.errors import ExportError, RecommenderError
from export.programs import compile_programs
from export.recommenders import RECOMMENDERS
from export.verify import TOLERANCE, verify
from wire.bundle import Bundle
from wire.manifest import Capacity, Optimizer
from wire.policy import TrainingPolicy


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("verify") / "bundle"
    words = ["build", "mf", "--items", "40", "--dimension", "4", "--proximal", "0.5", "--clip", "1"]
    assert main([*words, "--optimizer", "momentum", "--out", str(out)]) == 0
    return out


@pytest.fixture
def compiled_once(small: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a task is trained with plays no part in its programs."""
    files = {entry.path: small.path(entry).read_bytes() for entry in small.manifest.files}
    parts = small.manifest.programs
    programs = {path: files[path] for paths in parts.values() for path in paths.values()}
    monkeypatch.setattr("export.build.compile_programs", lambda *_: (parts, programs))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    model = RECOMMENDERS["mf"](items=9, dimension=2)
    return build_bundle(model, out=tmp_path_factory.mktemp("verify") / "small")


def test_a_good_bundle_is_verified(built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # Options may stand after the bundle.
    assert main(["verify", str(built), "--python", f"onnx={sys.executable}"]) == 0
    head, _, reference, onnx, tolerance = capsys.readouterr().out.splitlines()
    assert head.split()[:2] == ["engine", "difference"]
    assert reference.startswith("pytorch")
    assert 0 < float(reference.split()[1]) < TOLERANCE
    assert tolerance.split()[:2] == ["tolerance", "1.0e-05"]
    name, difference, microseconds, *memory = onnx.split()
    assert name == "onnx"
    assert float(difference) <= TOLERANCE
    assert float(microseconds) > 0
    assert "MB" in memory


def test_a_program_of_another_loss_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    meant, other = (RECOMMENDERS["mf"](items=9, dimension=2, l2=l2) for l2 in (0.0, 0.5))
    programs = compile_programs(other, Optimizer.SGD, ["onnx"], Capacity(8, 8))
    monkeypatch.setattr("export.build.compile_programs", lambda *_: programs)
    bundle = build_bundle(meant, out=tmp_path / "bundle")
    reference, onnx = verify(bundle, meant, {})
    assert reference.good
    assert not onnx.good
    assert onnx.difference > TOLERANCE


@pytest.mark.usefixtures("compiled_once")
def test_a_delta_that_float32_cannot_hold_widens_the_tolerance(tmp_path: Path) -> None:
    model = RECOMMENDERS["mf"](items=9, dimension=2)
    training = TrainingPolicy(learning_rate=1e-6)
    bundle = build_bundle(model, training=training, out=tmp_path / "bundle")
    reference, onnx = verify(bundle, model, {})
    assert reference.difference > TOLERANCE
    assert reference.tolerance == onnx.tolerance == min(4 * reference.difference, 1e-2)
    assert onnx.good == (onnx.difference <= onnx.tolerance)


def test_a_bundle_of_another_recommender_is_refused(small: Bundle) -> None:
    with pytest.raises(RecommenderError, match="built from another recommender"):
        next(verify(small, RECOMMENDERS["mf"](items=9, dimension=3), {}))


def test_without_a_record_the_recommender_has_to_be_named(
    built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = built / "build.json"
    text = record.read_text()
    assert json.loads(text)["recommender"] == "mf"
    record.unlink()
    try:
        assert main(["verify", str(built)]) == 2
        assert "does not say how the bundle was built" in capsys.readouterr().err
        named = ["verify", str(built), "--seed", "1", "--recommender", "mf", "--items", "40"]
        assert main([*named, "--dimension", "4"]) == 0
        assert main([*named, "--dimension", "5"]) == 2
    finally:
        record.write_text(text)


def test_a_runtime_that_is_not_installed_is_named_and_is_no_failure_of_others(
    small: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "absent").mkdir()
    (tmp_path / "absent" / "onnxruntime.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'onnxruntime'\", name='onnxruntime')"
    )
    model = RECOMMENDERS["mf"](items=9, dimension=2)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "absent"))
    _, onnx = verify(small, model, {"onnx": Path(sys.executable)})
    assert "pip install 'rivulet[agent]'" in onnx.note
    assert (onnx.available, onnx.good) == (False, True)
    assert math.isnan(onnx.difference)


@pytest.mark.usefixtures("compiled_once")
def test_a_learning_rate_without_effect_is_said(tmp_path: Path) -> None:
    model = RECOMMENDERS["mf"](items=9, dimension=2)
    training = TrainingPolicy(learning_rate=1e-30)
    bundle: Bundle = build_bundle(model, training=training, out=tmp_path / "bundle")
    with pytest.raises(ExportError, match="changes nothing"):
        list(verify(bundle, model, {}))
