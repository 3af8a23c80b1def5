import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from safetensors.numpy import load_file
from torch import Tensor, nn

import export
from export.build import build_bundle
from export.errors import ExportError, RecommenderError
from export.losses import bce
from export.recommender import Recommender
from export.recommenders import RECOMMENDERS
from export.recommenders.mf import MatrixFactorisation
from wire.bundle import Bundle, read_bundle
from wire.errors import ManifestError
from wire.manifest import BatchKind, ParameterSpec, Role
from wire.policy import CodecPolicy, TrainingPolicy


class Popularity(Recommender):
    """The worked example of `export.recommender`."""

    kind, batch = "popularity", BatchKind.POINTWISE

    def __init__(self, items: int) -> None:
        super().__init__()
        self.items = items
        self.bias_rows = nn.Parameter(torch.zeros(items, 1))

    def roles(self) -> dict[str, Role]:
        return {"bias_rows": Role.ROWS}

    def loss(self, item: Tensor, label: Tensor) -> Tensor:
        return bce(self.bias_rows[item].squeeze(1), label)

    def score(self) -> Tensor:
        return self.bias_rows.squeeze(1)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return build_bundle(
        RECOMMENDERS["mf"](items=20, dimension=4, loss="bpr", seed=7),
        name="films",
        training=TrainingPolicy(epochs=3),
        codec=CodecPolicy(rank=2),
        out=tmp_path_factory.mktemp("build") / "bundle",
    )


def files(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_a_bundle_holds_what_the_manifest_says(bundle: Bundle) -> None:
    manifest = bundle.manifest
    assert read_bundle(bundle.root) == bundle
    assert files(bundle.root).keys() == {"manifest.json", *(e.path for e in manifest.files)}
    assert (manifest.name, manifest.recommender, manifest.items) == ("films", "mf", 20)
    assert manifest.batch is BatchKind.PAIRWISE
    assert manifest.federated == (ParameterSpec("item_rows", Role.ROWS, (20, 4)),)
    assert manifest.private_parameters == (ParameterSpec("user_vector", Role.PRIVATE, (4,)),)
    assert manifest.programs == {
        "onnx": {"update": "programs/update.onnx", "scorer": "programs/scorer.onnx"}
    }
    assert (manifest.context, manifest.history, manifest.capacity) == ((), 0, None)
    assert (manifest.training.epochs, manifest.codec.rank) == (3, 2)


def test_private_parameters_are_not_among_the_federated_ones(bundle: Bundle) -> None:
    initial = load_file(bundle.root / bundle.manifest.initial)
    private = load_file(bundle.root / bundle.manifest.private)
    assert initial.keys() == {"item_rows"}
    assert private.keys() == {"user_vector"}
    model = MatrixFactorisation(items=20, dimension=4, seed=7)
    np.testing.assert_array_equal(initial["item_rows"], model.item_rows.detach().numpy())
    np.testing.assert_array_equal(private["user_vector"], model.user_vector.detach().numpy())


def test_programs_tell_nothing_of_the_machine_that_built_them(bundle: Bundle) -> None:
    for path in ("programs/update.onnx", "programs/scorer.onnx"):
        model = onnx.load(bundle.root / path)
        text = onnx.printer.to_text(model)
        assert ".py" not in text
        assert str(Path(export.__file__).parent) not in text
        assert "site-packages" not in text
        assert not any(node.metadata_props or node.doc_string for node in model.graph.node)


def test_the_same_seed_gives_the_same_bytes_in_another_process(
    bundle: Bundle, tmp_path: Path
) -> None:
    code = (
        "import sys; from export import RECOMMENDERS, build_bundle; from wire.policy import *;"
        "model = RECOMMENDERS['mf'](items=20, dimension=4, loss='bpr', seed=7);"
        "build_bundle(model, name='films', out=sys.argv[1],"
        "training=TrainingPolicy(epochs=3), codec=CodecPolicy(rank=2))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "12345"}
    subprocess.run([sys.executable, "-c", code, tmp_path / "again"], env=environment, check=True)
    assert files(tmp_path / "again") == files(bundle.root)


def test_the_package_offers_the_builders() -> None:
    assert (export.build_bundle, export.RECOMMENDERS) == (build_bundle, RECOMMENDERS)
    with pytest.raises(AttributeError, match="no attribute 'build_neumf'"):
        _ = export.build_neumf


def test_a_recommender_without_private_parameters(tmp_path: Path) -> None:
    bundle = build_bundle(Popularity(5), out=tmp_path / "bundle")
    assert bundle.manifest.name == "popularity"
    assert load_file(bundle.root / bundle.manifest.private) == {}


def test_parameters_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    model = Popularity(5)
    with torch.no_grad():
        model.bias_rows[2] = float("nan")
    with pytest.raises(RecommenderError, match="'bias_rows' starts with values"):
        build_bundle(model, out=tmp_path / "bundle")


def test_what_the_manifest_forbids_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="name"):
        build_bundle(Popularity(5), name="n" * 1_000, out=tmp_path / "bundle")
    assert not list(tmp_path.iterdir())


def test_an_unknown_runtime_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="'abacus' is unknown; expected one of onnx"):
        build_bundle(Popularity(5), runtimes=["abacus"], out=tmp_path / "bundle")


def test_a_taken_folder_is_refused_before_compiling(bundle: Bundle, tmp_path: Path) -> None:
    broken = Popularity(5)
    broken.items = 6
    # The folder is looked at first: the broken recommender is never noticed.
    with pytest.raises(ExportError, match="already holds a bundle"):
        build_bundle(broken, out=bundle.root)
    (tmp_path / "precious").write_text("data")
    with pytest.raises(ExportError, match="exists and is not a bundle"):
        build_bundle(broken, out=tmp_path, overwrite=True)
    with pytest.raises(ExportError, match="exists and is not a bundle"):
        build_bundle(broken, out=tmp_path / "precious")
