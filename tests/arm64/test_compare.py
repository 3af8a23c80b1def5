"""The comparison of two machines notices what it is there for."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.arm64.compare import main

VERSIONS = "numpy 2.0.0, onnxruntime 1.20.0"
Arrays = dict[str, NDArray[np.generic]]


@pytest.fixture
def result() -> Arrays:
    rng = np.random.default_rng(0)
    return {
        "mf/rows/items": np.array([3, 5, 8]),
        "mf/delta/items": rng.normal(size=(3, 4)).astype(np.float32),
        "mf/private/user": rng.normal(size=4).astype(np.float32),
        "mf/message": np.frombuffer(b"delta", np.uint8),
    }


def check(
    folder: Path, here: Arrays, there: Arrays, machine: str = "aarch64", versions: str = VERSIONS
) -> None:
    for name, arrays, labels in (
        ("here", here, ("x86_64", VERSIONS)),
        ("there", there, (machine, versions)),
    ):
        named = dict(zip(("machine", "versions"), map(np.array, labels), strict=True))
        np.savez(folder / name, allow_pickle=False, **arrays, **named)
    main([str(folder / "here.npz"), str(folder / "there.npz")])


def test_equal_results_pass(
    tmp_path: Path, result: Arrays, capsys: pytest.CaptureFixture[str]
) -> None:
    check(tmp_path, result, result)
    assert "passed" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["mf/delta/items", "mf/private/user"])
def test_values_may_differ_by_a_part_in_100_000_of_the_norm(
    tmp_path: Path, result: Arrays, name: str
) -> None:
    value = result[name].astype(np.float64)
    check(tmp_path, result, {**result, name: value * (1 + 5e-6)})
    for factor in (1 + 2e-5, np.nan):
        with pytest.raises(SystemExit, match="to 1e-05 of the norm"):
            check(tmp_path, result, {**result, name: value * factor})


def test_other_rows_fail(
    tmp_path: Path, result: Arrays, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="rows must be equal"):
        check(tmp_path, result, {**result, "mf/rows/items": np.array([3, 5, 9])})
    assert "FAILED: rows DIFFER" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (b"delta", "none of the message's 5 bytes differ"),
        (b"delty", "1 of the message's 5 bytes differ"),
        (b"delt", "the message has 5 bytes here and 4 there"),
    ],
)
def test_other_bytes_are_said_and_pass(
    tmp_path: Path, result: Arrays, message: bytes, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    check(tmp_path, result, {**result, "mf/message": np.frombuffer(message, np.uint8)})
    assert said in capsys.readouterr().out


@pytest.mark.parametrize("name", ["mf/rows/items", "mf/delta/items", "mf/private/user"])
def test_a_missing_array_fails(tmp_path: Path, result: Arrays, name: str) -> None:
    less = {key: value for key, value in result.items() if key != name}
    for here, there in ((result, less), (less, result)):
        with pytest.raises(SystemExit, match="must be equal"):
            check(tmp_path, here, there)


def test_updates_of_other_bundles_fail(tmp_path: Path, result: Arrays) -> None:
    with pytest.raises(SystemExit, match=r"updates of \['mf'\] here, of \[\] there"):
        check(tmp_path, result, {})


def test_the_other_side_is_arm64_with_the_same_versions(tmp_path: Path, result: Arrays) -> None:
    with pytest.raises(SystemExit, match="cannot compare"):
        check(tmp_path, result, result, machine="x86_64")
    with pytest.raises(SystemExit, match="cannot compare"):
        check(tmp_path, result, result, versions="numpy 2.0.1, onnxruntime 1.20.0")
