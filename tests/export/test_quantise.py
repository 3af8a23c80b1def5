"""`rivulet-export quantise`: a version's tables as int8, as the agent scores with them."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from export import build_bundle
from export.command import main
from export.recommenders.mf import MatrixFactorisation
from wire.bundle import Bundle
from wire.parameters import Int8Table, map_scoring_parameters


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return build_bundle(
        MatrixFactorisation(items=300, dimension=16), out=tmp_path_factory.mktemp("int8") / "bundle"
    )


def test_the_initial_version_and_a_later_one(
    tmp_path: Path, bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    out, version = tmp_path / "scoring.safetensors", tmp_path / "version.safetensors"
    later = np.random.default_rng(0).normal(size=(300, 16)).astype(np.float32)
    save_file({"item_rows": later}, version)
    initial = load_file(bundle.path(bundle.manifest.file(bundle.manifest.initial)))["item_rows"]
    for options, exact in (([], initial), (["--parameters", str(version)], later)):
        assert main(["quantise", str(bundle.root), *options, "--out", str(out)]) == 0
        table = map_scoring_parameters(out)["item_rows"]
        assert isinstance(table, Int8Table)
        worst = np.abs(table[np.arange(300)] - exact).max(axis=1)
        assert (worst <= 0.51 * np.abs(exact).max(axis=1) / 127).all()
    assert capsys.readouterr().out.endswith(f"{out}: {out.stat().st_size:,} bytes\n")
    assert out.stat().st_size < initial.nbytes / 2.5
    assert {path.name for path in tmp_path.iterdir()} == {out.name, version.name}


def test_a_version_of_another_task_is_refused(
    tmp_path: Path, bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.safetensors"
    save_file({"item_rows": np.ones((299, 16), np.float32)}, other)
    out = tmp_path / "out.safetensors"
    arguments = ["quantise", str(bundle.root), "--parameters", str(other), "--out", str(out)]
    assert main(arguments) == 1
    assert "lacks item_rows in the shape [300, 16]" in capsys.readouterr().err
    assert not out.exists()
