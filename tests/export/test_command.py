import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from export.command import main
from wire.bundle import read_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("command") / "bundle"
    arguments = ["build", "mf", "--items", "30", "--dimension", "4", "--loss", "bpr", "--bias"]
    policies = ["--learning-rate", "0.5", "--negatives", "2", "--codec", "top-k", "--bits", "1"]
    assert main([*arguments, *policies, "--seed", "5", "--out", str(out)]) == 0
    return out


def test_build_takes_all_options(bundle: Path) -> None:
    manifest = read_bundle(bundle).manifest
    assert [spec.shape for spec in manifest.parameters] == [(4,), (30, 5)]
    assert (manifest.training.learning_rate, manifest.training.negatives) == (0.5, 2)
    assert (manifest.codec.mode, manifest.codec.bits) == ("top-k", 1)


def test_show_prints_the_manifest(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(bundle)]) == 0
    text = capsys.readouterr().out
    assert read_bundle(bundle).task in text
    assert "mf, pairwise batches" in text
    assert "item_rows    rows     30 x 5  touched rows only" in text
    assert "user_vector  private  4       never" in text
    assert "programs/update.onnx" in text
    assert "600 bytes" in text
    assert "  learning_rate  0.5" in text


def test_force_replaces_a_bundle(
    tmp_path: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "bundle"
    shutil.copytree(bundle, out)
    arguments = ["build", "mf", "--items", "3", "--out", str(out)]
    assert main(arguments) == 1
    assert "already holds a bundle" in capsys.readouterr().err
    assert main([*arguments, "--force"]) == 0
    assert read_bundle(out).manifest.items == 3
    assert capsys.readouterr().out == f"{out}: task {read_bundle(out).task}\n"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["build", "mf", "--items", "0", "--out", "OUT"], 2, "items is 0"),
        (["build", "mf", "--items", "9", "--dimension", "0", "--out", "OUT"], 2, "dimension is 0"),
        (["build", "mf", "--items", "9", "--l2", "-1", "--out", "OUT"], 2, "l2 is -1.0"),
        (
            ["build", "mf", "--items", "9", "--epochs", "0", "--out", "OUT"],
            2,
            "training.epochs is 0",
        ),
        (["build", "mf", "--items", "9", "--bits", "3", "--out", "OUT"], 2, "codec.bits is 3"),
        (
            ["build", "mf", "--items", "9", "--learning-rate", "nan", "--out", "OUT"],
            2,
            "training.learning_rate is nan",
        ),
        (["build", "abacus", "--out", "OUT"], 2, "no recommender 'abacus'; expected one of"),
        (["build", "nowhere.at_all:make", "--out", "OUT"], 2, "no module 'nowhere'"),
        (["build", "export.losses:hinge", "--out", "OUT"], 2, "'export.losses' has no 'hinge'"),
        (["build", "wire.policy:MAX_BATCH", "--out", "OUT"], 2, "MAX_BATCH is 65536; expected"),
        (["build", "wire.policy:CodecPolicy", "--out", "OUT"], 2, "name of an option of build"),
        (
            ["build", "wire.messages:StatusState", "--value", "online", "--out", "OUT"],
            2,
            "an export",
        ),
        (["show", "OUT"], 1, "is not a bundle"),
        (["publish", "OUT", "--to", "http://localhost:1"], 1, "is not a bundle"),
        (["publish", "BUNDLE", "--to", "localhost"], 1, "is no address of an aggregator"),
    ],
)
def test_mistakes_are_one_line(
    tmp_path: Path,
    bundle: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    places = {"OUT": str(tmp_path / "bundle"), "BUNDLE": str(bundle)}
    assert main([places.get(argument, argument) for argument in arguments]) == code
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("rivulet-export: error: ")
    assert error.count("\n") == 1
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["build"],
        ["build", "mf"],
        ["build", "mf", "--out", "x"],
        ["build", "mf", "--items", "many", "--out", "x"],
        ["build", "mf", "--items", "3", "--out", "x", "--loss", "hinge"],
        ["publish", "x"],
    ],
)
def test_usage_errors_exit_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: rivulet-export" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["build", "mf"], ["show"], ["publish"], []])
def test_help_explains_every_option(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*command, "--help"])
    assert caught.value.code == 0
    assert "usage: rivulet-export" in capsys.readouterr().out


def test_show_does_not_load_pytorch(bundle: Path) -> None:
    code = (
        "import sys; from export.command import main;"
        "main(['show', sys.argv[1]]); sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, bundle], check=True, stdout=subprocess.DEVNULL)
