"""The manifest, the bundle on disk and the mapped parameters."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import array_shapes, arrays
from hypothesis.strategies import floats
from safetensors.numpy import save_file

from wire.bundle import MANIFEST_FILE, read_bundle
from wire.errors import BundleError, ManifestError
from wire.manifest import BatchKind, FileEntry, Manifest, ParameterSpec, Role, task_id
from wire.parameters import (
    Int8Table,
    map_parameters,
    map_scoring_parameters,
    quantise_rows,
)
from wire.policy import CodecPolicy, TrainingPolicy


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A bundle folder with files that the wire does not look into."""
    contents = {"update.onnx": b"program", "scorer.onnx": b"scorer", "p.safetensors": b"parameters"}
    files = []
    for path, content in contents.items():
        (tmp_path / path).write_bytes(content)
        files.append(FileEntry(path, hashlib.sha256(content).hexdigest(), len(content)))
    manifest = Manifest(
        name="test",
        recommender="mf",
        items=5,
        batch=BatchKind.POINTWISE,
        parameters=(
            ParameterSpec("item", Role.ROWS, (5, 2)),
            ParameterSpec("user", Role.PRIVATE, (2,)),
        ),
        programs={"onnx": {"update": "update.onnx", "scorer": "scorer.onnx"}},
        initial="p.safetensors",
        private="p.safetensors",
        frozen="p.safetensors",
        files=tuple(files),
        training=TrainingPolicy(),
        codec=CodecPolicy(),
    )
    (tmp_path / MANIFEST_FILE).write_bytes(manifest.to_json())
    return tmp_path


def test_a_manifest_comes_back_and_names_its_task(root: Path) -> None:
    raw = (root / MANIFEST_FILE).read_bytes()
    manifest = Manifest.from_json(raw)
    assert manifest.to_json() == raw
    assert [spec.name for spec in manifest.federated] == ["item"]
    assert manifest.dense_bytes == 40
    assert task_id(raw) == hashlib.sha256(raw).hexdigest()[:32]


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("format", 2, r"manifest\.format is 2; expected 1"),
        ("name", "", "manifest.name"),
        ("name", "\ud800", "printable"),
        ("items", 0, "manifest.items is 0"),
        ("items", 6, r"parameters.item.shape is \[5, 2\]; expected \[6, width\]"),
        ("batch", "sideways", "manifest.batch"),
        ("parameters", [], "nothing to federate"),
        ("parameters", [{"name": "a", "role": "secret", "shape": [1]}], "role is 'secret'"),
        ("parameters", [{"name": "a", "role": "dense", "shape": []}], "shape"),
        ("parameters", [{"name": "a b", "role": "dense", "shape": [1]}], "name is 'a b'"),
        ("programs", {}, "at least one entry"),
        ("programs", {"onnx": {}}, r"manifest\.programs\.onnx is \{\}; expected at least one"),
        ("programs", {"onnx": {"update": 1}}, r"manifest\.programs\.onnx\.update is 1"),
        ("programs", {"onnx": {"update": "none.onnx"}}, "no entry for 'none.onnx'"),
        ("optimizer", "newton", r"manifest\.optimizer is 'newton'"),
        ("capacity", {"rows": 0, "batch": 1}, r"manifest\.capacity\.rows is 0"),
        ("row_requests", 1, r"manifest\.row_requests is 1; expected true or false"),
        ("history", -1, r"manifest\.history is -1"),
        ("batch", "sequence", r"manifest\.history is 0; expected at least 1"),
        ("context", [{"name": "hour", "size": 0}], r"manifest\.context\[0\]\.size is 0"),
        ("context", [{"name": "hour", "size": 2}] * 2, "a name twice"),
        ("training", {"learning_rate": -1}, "training.learning_rate is -1"),
        ("training", {"lr": 1}, "unknown key 'lr'"),
        ("training", {"learning_rate": 10**400}, "learning_rate is an integer of 1329 bits"),
        ("codec", {"bits": 3}, "codec.bits is 3"),
        ("codec", {"bits": [1]}, "codec.bits"),
        ("extra", 1, "unknown key 'extra'"),
        ("files", [{"path": "../a", "sha256": "0" * 64, "size_bytes": 1}], "inside the bundle"),
        ("files", [{"path": "/a", "sha256": "0" * 64, "size_bytes": 1}], "inside the bundle"),
        ("files", [{"path": "a", "sha256": "xyz", "size_bytes": 1}], "hex"),
    ],
)
def test_a_bad_field_is_named(root: Path, key: str, value: Any, says: str) -> None:
    document = json.loads((root / MANIFEST_FILE).read_bytes())
    document[key] = value
    with pytest.raises(ManifestError, match=says):
        Manifest.from_json(json.dumps(document).encode())


def test_a_missing_field_is_named(root: Path) -> None:
    document = json.loads((root / MANIFEST_FILE).read_bytes())
    del document["programs"]
    with pytest.raises(ManifestError, match=r"manifest\.programs is missing"):
        Manifest.from_json(json.dumps(document).encode())


@pytest.mark.parametrize("raw", [b"", b"\xff\xfe", b"[" * 100_000, b"null"])
def test_what_is_not_a_manifest_is_refused(raw: bytes) -> None:
    with pytest.raises(ManifestError):
        Manifest.from_json(raw)


def test_a_bundle_is_read(root: Path) -> None:
    assert read_bundle(root).manifest.name == "test"


@pytest.mark.parametrize("name", ["update.onnx", "scorer.onnx", "p.safetensors"])
def test_a_bundle_with_one_byte_changed_is_refused(root: Path, name: str) -> None:
    content = bytearray((root / name).read_bytes())
    content[2] ^= 1
    (root / name).write_bytes(content)
    with pytest.raises(BundleError, match="digest"):
        read_bundle(root)


def test_a_truncated_or_incomplete_bundle_is_refused(root: Path) -> None:
    (root / "update.onnx").write_bytes(b"prog")
    with pytest.raises(BundleError, match="4 bytes; the manifest says 7"):
        read_bundle(root)
    (root / "update.onnx").unlink()
    with pytest.raises(BundleError, match="missing"):
        read_bundle(root)
    with pytest.raises(BundleError, match="not a bundle"):
        read_bundle(root / "nowhere")


def test_parameters_are_mapped_as_written(tmp_path: Path) -> None:
    table = np.arange(12, dtype=np.float32).reshape(4, 3)
    path = tmp_path / "p.safetensors"
    save_file({"item": table, "bias": np.ones(2, np.float32)}, path)
    mapped = map_parameters(path)
    assert set(mapped) == {"item", "bias"}
    np.testing.assert_array_equal(mapped["item"], table)
    assert isinstance(mapped["item"], np.memmap)
    assert not mapped["item"].flags.writeable


@pytest.mark.parametrize("keep", [0, 4, 20, -1])
def test_a_truncated_parameter_file_is_refused(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "p.safetensors"
    save_file({"item": np.ones((4, 3), np.float32)}, path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(BundleError):
        map_parameters(path)


def test_other_types_than_float32_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "p.safetensors"
    save_file({"item": np.ones((4, 3), np.float64)}, path)
    with pytest.raises(BundleError, match="F32"):
        map_parameters(path)


@given(
    arrays(
        np.float32,
        array_shapes(min_dims=2, max_dims=2, max_side=20),
        elements=floats(-(2.0**100), 2.0**100, width=32),
    )
)
def test_no_entry_of_an_int8_table_is_off_by_more_than_half_a_level(table: Any) -> None:
    quantised = quantise_rows(table)
    found = quantised[np.arange(len(table))]
    assert quantised.codes.dtype == np.int8
    assert found.dtype == np.float32
    assert quantised.shape == table.shape
    level = np.abs(table).max(axis=1, keepdims=True) / 127
    # One rounding of the scale and one of the product, and numbers near the smallest float32.
    assert (np.abs(found - table.astype(np.float64)) <= 0.5001 * level + 1e-42).all()


def test_int8_tables_are_mapped_and_read_by_row(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    table, bias = rng.normal(size=(6, 3)).astype(np.float32), np.ones(2, np.float32)
    table[2] = 0.0
    quantised = quantise_rows(table)
    path = tmp_path / "scoring.safetensors"
    save_file({**quantised.tensors("item"), "bias": bias}, path)
    mapped = map_scoring_parameters(path)
    item = mapped["item"]
    assert set(mapped) == {"item", "bias"}
    assert isinstance(item, Int8Table)
    assert isinstance(item.codes, np.memmap)
    rows = np.array([5, 2, 5])
    np.testing.assert_array_equal(item[rows], quantised[rows])
    np.testing.assert_array_equal(item[rows][1], np.zeros(3))
    np.testing.assert_array_equal(mapped["bias"][...], bias)
    with pytest.raises(BundleError, match="F32"):
        map_parameters(path)


@pytest.mark.parametrize("scales", [None, np.ones(5, np.float32), np.ones(6, np.int8)])
def test_int8_without_a_scale_for_each_row_is_refused(tmp_path: Path, scales: Any) -> None:
    tensors = {"item": np.ones((6, 3), np.int8)}
    path = tmp_path / "scoring.safetensors"
    save_file(tensors if scales is None else {**tensors, "item.scale": scales}, path)
    with pytest.raises(BundleError, match="without a float32 scale"):
        map_scoring_parameters(path)


def test_row_requests_are_named_only_where_they_are_allowed(root: Path) -> None:
    manifest = Manifest.from_json((root / MANIFEST_FILE).read_bytes())
    # An agent of before there were any reads it too.
    assert not manifest.row_requests
    assert b"row_requests" not in manifest.to_json()
    allowed = replace(manifest, row_requests=True)
    assert Manifest.from_json(allowed.to_json()) == allowed
