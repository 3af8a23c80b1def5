"""The command line: what it prints, its exit codes, its messages on bad input."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from edge_agent.command import main
from edge_agent.config import CONFIG_VARIABLE
from tests.edge_agent.fakes import Device, config_for
from tests.edge_agent.history_task import make_context_task
from tests.edge_agent.tiny_task import ITEMS, WIDTH, TinyTask
from wire.parameters import quantise_rows


@pytest.fixture(autouse=True)
def _own_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test's settings are in the file that the variable names."""
    path = tmp_path / "agent.toml"
    path.write_text(
        f"""
        device = "dev-1"
        state_dir = "{tmp_path / "state"}"
        aggregator = "http://localhost:1"
        broker = "mqtt://localhost:1"
        """
    )
    monkeypatch.setenv(CONFIG_VARIABLE, str(path))


def table(capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """What ``status`` prints, by its first column."""
    lines = capsys.readouterr().out.splitlines()
    return {line[:13].strip(): line[13:].strip() for line in lines}


def test_events_imports_and_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["log-event", "--item", "4"]) == 0
    assert main(["log-event", "--item", "5", "--at", "2026-01-01"]) == 0
    assert main(["log-event", "--item", "5", "--at", "2026-01-01"]) == 0
    assert main(["log-event", "--item", "4", "--context", "room=2", "--context", "day=1"]) == 0
    assert main(["log-event", "--item", "6", "--at", "2026-01-01", "--context", "room=0"]) == 0
    file = tmp_path / "h.csv"
    file.write_text("item;when\n1;1\n2;2\nx;3\n")
    options = ["--time-column", "when", "--delimiter", ";"]
    capsys.readouterr()
    assert main(["import", str(file), *options]) == 1
    printed = capsys.readouterr()
    assert printed.out == "2 added, 0 known already, 1 broken\n"
    assert printed.err == f"{file}:4: skipped: item is 'x'; expected an integer\n"
    assert main(["status"]) == 0
    found = table(capsys)
    assert found["device"] == "dev-1"
    assert found["interactions"] == "6"
    assert found["task"] == found["version"] == found["evaluation"] == "none yet"


def test_status_and_recommend_after_training(
    tmp_path: Path,
    task: TinyTask,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    device = Device(tmp_path / "state", task, config=config_for(tmp_path / "state"))
    device.ready(3, 14, 15, 9, 26, 5)
    update = device.update()
    assert main(["status"]) == 0
    found = table(capsys)
    assert found["task"] == f"{task.task} tiny"
    assert found["version"] == "0"
    assert found["updates"].startswith("1 made, 0 accepted, 0 duplicate, 0 rejected, 1 waiting")
    assert re.fullmatch(r"hr_at_10 \S+, ndcg_at_10 \S+, loss \S+", found["evaluation"])
    assert found["bytes"].startswith(f"{len(update.encode())} sent, ")
    # The fake source keeps its files elsewhere; a device has them in its state folder.
    for kind in ("files", "snapshots"):
        (tmp_path / "state" / kind).mkdir()
        for file in (tmp_path / "state" / "blobs").iterdir():
            (tmp_path / "state" / kind / file.name).write_bytes(file.read_bytes())
    assert main(["recommend", "--top", "5"]) == 0
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert len(rows) == 5
    assert not {int(item) for item, _ in rows} & {3, 14, 15, 9, 26, 5}
    scores = [float(score) for _, score in rows]
    assert scores == sorted(scores, reverse=True)
    small = tmp_path / "small.safetensors"
    # A catalogue of one good item, and then a file that is none.
    catalogue = np.zeros((ITEMS, WIDTH), np.float32)
    own = device.store.private(task.task, task.manifest.private_parameters)["user"]
    catalogue[33] = 1e3 * own
    save_file({**quantise_rows(catalogue).tensors("table"), "bias": np.zeros(1, np.float32)}, small)
    assert main(["recommend", "--top", "1", "--parameters", str(small)]) == 0
    assert capsys.readouterr().out.startswith("33\t")
    small.write_bytes(b"small")
    assert main(["recommend", "--parameters", str(small)]) == 1
    assert "small.safetensors is not a safetensors file" in capsys.readouterr().err
    assert main(["log-event", "--item", str(ITEMS)]) == 2
    assert f"the catalogue has {ITEMS} items" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["status"], 1, "has no database yet; start the agent, or import interactions"),
        (["recommend"], 1, "has no database yet"),
        (["log-event", "--item", "-1"], 2, "item is -1; expected an id of at least 0"),
        (["log-event", "--item", "1", "--at", "soon"], 2, "time is 'soon'; expected unix seconds"),
        (
            ["log-event", "--item", "1", "--context", "room=-1"],
            2,
            "context room is -1; expected an id of at least 0 as room",
        ),
        (["import", "/nowhere.csv"], 2, "cannot read /nowhere.csv: No such file"),
        (["--config", "/nowhere.toml", "status"], 2, "cannot read /nowhere.toml: No such file"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("rivulet-agent: error: ")
    assert printed.err.count("\n") == 1
    assert message in printed.err


def test_context_of_a_task_is_logged_imported_and_recommended_in(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = make_context_task()
    device = Device(tmp_path / "state", task, config=config_for(tmp_path / "state"))
    device.ready(3, 14, 15)
    device.update()
    (tmp_path / "state" / "blobs").rename(tmp_path / "state" / "files")
    shutil.copytree(tmp_path / "state" / "files", tmp_path / "state" / "snapshots")
    file = tmp_path / "h.csv"
    file.write_text("item,time,daytime\n1,1,3\n2,2,4\n3,3,\n")
    assert main(["import", str(file), "--context-column", "daytime"]) == 1
    assert f"{file}:3: skipped: context daytime is 4; daytime has 4 values" in (
        capsys.readouterr().err
    )
    assert main(["import", str(file), "--context-column", "mood"]) == 2
    assert main(["log-event", "--item", "4", "--context", "mood=1"]) == 2
    assert capsys.readouterr().err.count("the task has no context field 'mood'") == 2
    assert main(["log-event", "--item", "4", "--context", "daytime=2"]) == 0
    stored = device.store.history(task.manifest.context)
    assert stored.items.tolist() == [1, 3, 3, 14, 15, 4]
    assert stored.context[:, 1].tolist() == [3, 0, 0, 0, 0, 2]
    capsys.readouterr()
    printed = []
    for options in ([], ["--context", "daytime=2"], ["--context", "daytime=1"], ["--again"]):
        assert main(["recommend", "--top", str(ITEMS), *options]) == 0
        printed.append(capsys.readouterr().out.splitlines())
    assert printed[0] == printed[1] != printed[2]
    assert [len(lines) for lines in printed] == [ITEMS - 5] * 3 + [ITEMS]


def test_recommend_before_any_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["log-event", "--item", "4"]) == 0
    assert main(["recommend"]) == 1
    assert "no model is on this device yet" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["recommend", "--top", "0"],
        ["recommend", "--context", "room"],
        ["log-event", "--item", "1", "--context", "room=attic"],
        ["import", "f", "--delimiter", "ab"],
        ["fly"],
    ],
)
def test_usage_errors(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: rivulet-agent" in capsys.readouterr().err


@pytest.mark.parametrize("command", [[], ["run"], ["status"], ["recommend"], ["import"]])
def test_help_teaches(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*command, "--help"])
    assert caught.value.code == 0
    assert len(capsys.readouterr().out.splitlines()) > 3


def test_an_unknown_setting_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RIVULET_AGENT_RUNTIM", "onnx")
    assert main(["status"]) == 2
    assert "unknown variable RIVULET_AGENT_RUNTIM" in capsys.readouterr().err
