"""`rivulet-fleet compare` as a person runs it: the report, going on after a stop, bad input."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from subprocess import PIPE
from typing import Any

import pytest

from device_sims.command import main
from device_sims.comparison.grid import find_scenarios
from tests.device_sims.made_once import made_once

FLEET = Path(sys.executable).with_name("rivulet-fleet")
DEADLINE_S = 120.0
SMALL = """
name = "{name}"
[task.training]
interval_s = 300.0
[data]
users = 8
[fleet]
update_s = {update_s}
[aggregation]
buffer_size = 4
[run]
hours = {hours}
evaluate_every_h = 0.25
"""


def write(folder: Path, name: str, *, update_s: float = 5.0, hours: float = 0.25) -> Path:
    path = folder / f"{name}.toml"
    path.write_text(SMALL.format(name=name, update_s=update_s, hours=hours))
    return path


def report_of(folder: Path) -> Any:
    return json.loads((folder / "report.json").read_text())["panels"][0]


def _heed_ctrl_c() -> None:
    """What a shell starts in the background ignores it, and so would what that starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def records(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in (folder / "finished").iterdir()}


@pytest.mark.slow
def test_two_scenarios_are_compared_and_seeds_added_later(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made_once(monkeypatch, tmp_path / "made")
    scenarios, out = tmp_path / "scenarios", tmp_path / "out"
    scenarios.mkdir()
    write(scenarios, "a")
    write(scenarios, "b", update_s=200.0)
    evidence = tmp_path / "EVIDENCE.md"
    evidence.write_text("<!-- compare out -->\n<!-- end out -->\n")
    command = ["compare", str(scenarios), "--out", str(out), "--processes", "2"]
    assert main([*command, "--seeds", "1", "--insert", str(evidence)]) == 0
    said = capsys.readouterr().out
    assert "2 of 2" in said
    assert "| a | " in said
    assert "| popularity | " in evidence.read_text()
    first = records(out)
    assert len(first) == 2
    assert main([*command, "--seeds", "2", "--centralised"]) == 0
    assert "2 of 6 runs are there already" in capsys.readouterr().out
    assert {name: text for name, text in records(out).items() if name in first} == first
    shown = report_of(out)
    assert [entry["name"] for entry in shown["scenarios"]] == ["a", "b"]
    assert [entry["seeds"] for entry in shown["scenarios"]] == [[0, 1], [0, 1]]
    assert (
        shown["centralised"]["ndcg_at_10"]["mean"] > shown["baselines"]["popularity"]["ndcg_at_10"]
    )
    assert set(shown["differences"]) == {"fleet.update_s"}
    assert (out / "report.html").stat().st_size > 1e6
    # What one run gives does not depend on what else runs, or in which process.
    alone = tmp_path / "alone"
    assert main(["compare", str(scenarios / "b.toml"), "--out", str(alone), "--seeds", "1"]) == 0
    assert report_of(alone)["scenarios"][0]["runs"]["0"] == shown["scenarios"][1]["runs"]["0"]


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_finished_and_the_same_command_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "out"
    quick, slow = write(tmp_path, "quick", hours=0.01), write(tmp_path, "slow", hours=1e6)
    command = [str(FLEET), "compare", str(quick), str(slow), "--out", str(out), "--seeds", "1"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    with subprocess.Popen(
        command, stdout=PIPE, stderr=PIPE, text=True, env=environment, preexec_fn=_heed_ctrl_c
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "1 of 2   quick" in line:
                break
        process.send_signal(signal.SIGINT)
        said, complaints = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 1
    assert "stopped: 1 of 2 runs are missing" in said
    assert "Traceback" not in complaints
    shown = report_of(out)
    assert [entry["name"] for entry in shown["scenarios"]] == ["quick"]
    assert shown["unfinished"] == {"slow": [0]}
    assert not (out / "under-way").exists()
    before = records(out)
    # The slow one is called off: what is there is enough, and nothing is run again.
    assert main(["compare", str(quick), "--out", str(out), "--seeds", "1"]) == 0
    assert records(out) == before


def test_files_of_a_folder_come_in_order_and_data_from_where_it_is_said(tmp_path: Path) -> None:
    for name in ("b", "a"):
        write(tmp_path, name)
    (tmp_path / "c.toml").write_text('[data]\ndataset = "movielens"\nfiles = ["ml/u.data"]\n')
    found = find_scenarios([tmp_path], Path("/data"))
    assert [scenario.name for scenario in found] == ["a", "b", "c"]
    assert found[2].data.files == (Path("/data/ml/u.data"),)
    assert find_scenarios([tmp_path / "c.toml"])[0].data.files == (Path("ml/u.data"),)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--seeds", "0"], "--seeds is 0; expected at least 1"),
        (["--processes", "0"], "--processes is 0; expected at least 1"),
        (["--ray", "auto", "--processes", "2"], "--processes goes without --ray"),
        (["--target-share", "1.5"], "--target-share is 1.5; expected a number above 0"),
        (["--target-ndcg", "nan"], "--target-ndcg is nan; expected a number above 0"),
        (["SAME"], "two scenarios are called 'a'"),
        (["RENAMED"], "'z' is the same as 'a' but for its name"),
        (["/nowhere.toml"], "cannot read /nowhere.toml"),
        (["EMPTY"], "has no scenarios; expected files that end in .toml"),
        (["MISSING"], "No such file or directory"),
        (["--insert", "EMPTY/none.md"], "No such file or directory"),
    ],
)
def test_bad_input_is_one_line_and_code_2_before_anything_starts(
    tmp_path: Path, arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    first = write(tmp_path, "a")
    renamed, missing, empty = (tmp_path / name for name in ("z.toml", "m.toml", "empty"))
    renamed.write_text(first.read_text().replace('"a"', '"z"'))
    missing.write_text('[data]\ndataset = "movielens"\nfiles = ["/nowhere/u.data"]\n')
    empty.mkdir()
    paths = {"SAME": first, "RENAMED": renamed, "MISSING": missing, "EMPTY": empty}
    given = [str(paths.get(text, text)) for text in arguments]
    given = [text.replace("EMPTY", str(empty)) for text in given]
    out = tmp_path / "out"
    assert main(["compare", str(first), *given, "--out", str(out)]) == 2
    assert says in capsys.readouterr().err
    assert not list(out.glob("finished/*"))


def test_a_folder_that_no_run_wrote_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = write(tmp_path, "a")
    assert main(["compare", str(first), "--out", str(tmp_path)]) == 2
    assert "holds files that no run wrote" in capsys.readouterr().err


def test_a_broken_record_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from device_sims.comparison.work import scenario_digest

    first, out = write(tmp_path, "a"), tmp_path / "out"
    (out / "finished").mkdir(parents=True)
    (out / ".rivulet-run").touch()
    digest = scenario_digest(find_scenarios([first])[0])
    for text in ("{", '{"format": 0}'):
        (out / "finished" / f"{digest}-0.json").write_text(text)
        assert main(["compare", str(first), "--out", str(out), "--seeds", "1"]) == 2
        assert f"{digest}-0.json" in capsys.readouterr().err
