"""`rivulet-fleet demo` as a person runs it: the report, Ctrl-C, bad input, both brokers."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from device_sims.brokers import find_mosquitto
from device_sims.command import main

FLEET = Path(sys.executable).with_name("rivulet-fleet")
SMALL = ["--devices", "12", "--passes", "2", "--buffer", "4", "--update-time", "0.01"]
DEADLINE_S = 120.0

BROKERS = [
    "embedded",
    pytest.param(
        "mosquitto",
        marks=pytest.mark.skipif(find_mosquitto() is None, reason="mosquitto is not installed"),
    ),
]


def report_of(folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return document


@pytest.mark.slow
@pytest.mark.parametrize("broker", BROKERS)
def test_a_fleet_trains_and_reports(
    tmp_path: Path, broker: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", *SMALL, "--broker", broker, "--out", str(tmp_path / "run")]) == 0
    report = report_of(tmp_path / "run")
    assert (report["dataset"], report["devices"], report["passes"]) == ("synthetic", 12, 2)
    assert report["updates"] == {
        "published": 24,
        "accepted": 24,
        "duplicate": report["updates"]["duplicate"],
        "rejected": 0,
    }
    assert report["versions"] >= 24 // 4 - 1
    figures = {"hr_at_10", "ndcg_at_10", "full_hr_at_10", "full_ndcg_at_10"}
    for moment in ("initial", "final", "popularity"):
        assert figures <= set(report["quality"][moment])
    assert 0 < report["uplink_bytes"]["mean"] <= report["uplink_bytes"]["p99"]
    assert report["uplink_bytes"]["total"] == round(24 * report["uplink_bytes"]["mean"])
    assert report["uplink_bytes"]["dense_mean"] > 10 * report["uplink_bytes"]["mean"]
    assert report["downlink_bytes"]["total"] > 0
    assert report["staleness"]["max"] >= report["staleness"]["mean"] >= 0
    assert report["wall_seconds"] > 0
    page = (tmp_path / "run" / "report.html").read_text()
    assert "12 devices learned synthetic" in page
    assert "//cdn" not in page
    said = capfd.readouterr().out
    assert broker in said.lower() or "amqtt" in said
    assert "/dashboard" in said
    assert "popularity" in said


@pytest.mark.slow
def test_ctrl_c_reports_what_was_finished(tmp_path: Path) -> None:
    command = [str(FLEET), "demo", "--devices", "12", "--passes", "10000", "--out", str(tmp_path)]
    with subprocess.Popen(
        [*command, "--broker", "embedded", "--update-time", "0.01"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(line)
            if line.startswith("pass   2"):
                process.send_signal(signal.SIGINT)
                break
        said.append(process.stdout.read())
        assert process.wait(DEADLINE_S) == 0, "".join(said)
    assert "reporting what was finished" in said[-1]
    report = report_of(tmp_path)
    assert 0 < report["updates"]["accepted"] < 120_000
    assert len(report["quality"]["rounds"]) >= 3


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--dataset", "movielens"], "needs --data FILE"),
        (["--data", "somewhere"], "goes with --dataset"),
        (["--dataset", "movielens", "--data", "nowhere.dat"], "nowhere.dat"),
        (["--passes", "0"], "--passes is 0"),
        (["--concurrency", "0"], "--concurrency is 0"),
        (["--update-time", "0"], "--update-time"),
        (["--learning-rate", "-1"], "learning_rate is -1"),
        (["--bits", "3"], "codec.bits is 3"),
    ],
)
def test_bad_arguments_are_named(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["demo", "--out", str(tmp_path / "run"), *arguments]) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_more_devices_than_users_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "events.csv"
    data.write_text("user,item,time\n" + "".join(f"a,i{n},{n}\n" for n in range(5)))
    arguments = ["demo", "--dataset", "csv", "--data", str(data), "--devices", "2"]
    assert main([*arguments, "--out", str(tmp_path / "run")]) == 2
    assert "2 devices were asked for; expected 1 to 1" in capsys.readouterr().err


def test_a_broken_line_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "events.csv"
    data.write_text("user,item,time\na,i1,1\na,i2,soon\n")
    arguments = ["demo", "--dataset", "csv", "--data", str(data)]
    assert main([*arguments, "--out", str(tmp_path / "run")]) == 2
    assert "soon" in capsys.readouterr().err


def test_a_broker_that_is_not_there_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["demo", "--devices", "4", "--broker", "mqtt://127.0.0.1:9"]
    assert main([*arguments, "--out", str(tmp_path / "run")]) == 1
    assert "no broker answers at mqtt://127.0.0.1:9" in capsys.readouterr().err
