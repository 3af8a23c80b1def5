"""Writing is all or nothing, and a changed bundle is refused."""

from pathlib import Path

import numpy as np
import pytest

from export.bundle import Content, write_bundle
from export.errors import ExportError
from wire.bundle import read_bundle
from wire.errors import BundleError
from wire.manifest import BatchKind, ParameterSpec, Role
from wire.policy import CodecPolicy, TrainingPolicy


def content(name: str = "small") -> Content:
    return Content(
        name=name,
        recommender="mf",
        items=2,
        batch=BatchKind.POINTWISE,
        parameters=(ParameterSpec("rows", Role.ROWS, (2, 3)),),
        values={"rows": np.arange(6, dtype=np.float32).reshape(2, 3)},
        programs={"onnx": {"update": "programs/update.onnx", "scorer": "programs/scorer.onnx"}},
        files={"programs/update.onnx": b"the program", "programs/scorer.onnx": b"the scorer"},
        training=TrainingPolicy(),
        codec=CodecPolicy(),
    )


def test_only_the_bundle_appears(tmp_path: Path) -> None:
    bundle = write_bundle(content(), tmp_path / "deep" / "bundle")
    assert bundle.root == tmp_path / "deep" / "bundle"
    assert [path.name for path in bundle.root.parent.iterdir()] == ["bundle"]


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    assert read_bundle(write_bundle(content(), tmp_path / "bundle").root)


def test_a_bundle_is_replaced_only_when_told_so(tmp_path: Path) -> None:
    first = write_bundle(content("first"), tmp_path / "bundle")
    with pytest.raises(ExportError, match="already holds a bundle"):
        write_bundle(content("second"), tmp_path / "bundle")
    assert read_bundle(first.root).manifest.name == "first"
    write_bundle(content("second"), tmp_path / "bundle", overwrite=True)
    assert read_bundle(first.root).manifest.name == "second"
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.parametrize(
    "path",
    [
        "programs/update.onnx",
        "programs/scorer.onnx",
        "parameters.safetensors",
        "private.safetensors",
        "frozen.safetensors",
    ],
)
def test_one_byte_changed_is_refused(tmp_path: Path, path: str) -> None:
    bundle = write_bundle(content(), tmp_path / "bundle")
    file = bundle.root / path
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2] ^= 1
    file.write_bytes(raw)
    with pytest.raises(BundleError, match=f"{path} was changed"):
        read_bundle(bundle.root)


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    bundle = write_bundle(content(), tmp_path / "bundle")
    (bundle.root / "programs/scorer.onnx").write_bytes(b"the")
    with pytest.raises(BundleError, match=r"scorer.onnx has 3 bytes; the manifest says 10"):
        read_bundle(bundle.root)
