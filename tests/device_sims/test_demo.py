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
from device_sims.datasets import load_delimited, load_smartthings, split_latest
from edge_agent.history import History
from edge_agent.store import Store
from wire.manifest import ContextField

FLEET = Path(sys.executable).with_name("rivulet-fleet")
SMALL = ["--devices", "12", "--passes", "2", "--buffer", "4", "--update-time", "0.01"]
DEADLINE_S = 120.0


def report_of(folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return document


@pytest.mark.slow
def test_a_fleet_trains_and_reports(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    # The other demonstrations have the embedded broker.
    broker = "embedded" if find_mosquitto() is None else "mosquitto"
    assert main(["demo", *SMALL, "--broker", broker, "--out", str(tmp_path / "run")]) == 0
    report = report_of(tmp_path / "run")
    assert (report["dataset"], report["devices"], report["passes"]) == ("synthetic", 12, 2)
    assert (report["recommender"], report["task"], report["notes"]) == ("mf", "new item", [])
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


def history_on(device: Path) -> History:
    store = Store(device / "agent.db")
    names = ("day_of_week", "hour3")
    history = store.history([ContextField(name, 10) for name in names])
    store.close()
    return history


@pytest.mark.slow
def test_a_next_action_task_with_context_and_features(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Twelve logs of 20 actions; what repeats stays, and the device trains on all it holds."""
    lines = ["instance,step,day_of_week,hour3,device,control,device_control"]
    for household in range(12):
        log = [(household + step * step) % 9 for step in range(20)]
        for start in range(11):
            lines += [
                f"{household * 100 + start},{step},{household % 7},{(start + step) % 8},"
                f"{action // 3},0,{action}"
                for step, action in enumerate(log[start : start + 10])
            ]
    parts = [tmp_path / "trn.csv", tmp_path / "vld.csv"]
    parts[0].write_text("\n".join(lines[:701]) + "\n")
    parts[1].write_text("\n".join([lines[0], *lines[701:]]) + "\n")
    out = tmp_path / "run"

    arguments = ["demo", *SMALL, "--broker", "embedded", "--out", str(out)]
    arguments += ["--dataset", "smartthings", "--data", *map(str, parts)]
    assert main([*arguments, "--recommender", "fm", "--dimension", "4"]) == 0

    assert "amqtt" in capfd.readouterr().out
    report = report_of(out)
    assert (report["recommender"], report["task"]) == ("fm", "next action")
    assert report["context"]["day_of_week"] == [*"0123456"]
    assert report["features"] == ["device=0", "device=1", "device=2"]
    assert any("taken for a household" in note for note in report["notes"])
    assert report["updates"]["accepted"] == 24
    for moment in ("initial", "final", "popularity", "own_frequency"):
        quality = report["quality"][moment]
        assert quality["hr_at_10"] == quality["full_hr_at_10"] == 1.0  # There are 9 actions.
        assert quality["ndcg_at_10"] == quality["full_ndcg_at_10"]
    model = report["settings"]["model"]
    assert (model["recommender"], model["options"]["dimension"]) == ("fm", 4)
    page = (out / "report.html").read_text()
    assert "learned smartthings with fm" in page
    assert "taken for a household" in page

    split = split_latest(load_smartthings(parts))
    for user in range(split.user_count):
        held = history_on(out / "devices" / f"device-{user:05}")
        assert held.items.tolist() == split.train.items_of(user).tolist()
        assert held.context.tolist() == split.train.context_of(user).tolist()
        assert len(held) == 18


@pytest.mark.slow
def test_a_device_with_too_little_to_train_on_is_evaluated_only(tmp_path: Path) -> None:
    data, out = tmp_path / "events.csv", tmp_path / "run"
    rows = [
        (user, (user * 3 + at) % 20, at) for user in range(12) for at in range(9 if user else 3)
    ]
    data.write_text("user,item,time\n" + "".join(f"u{u:02},i{i:02},{at}\n" for u, i, at in rows))

    arguments = ["demo", *SMALL, "--broker", "embedded", "--out", str(out)]
    arguments += ["--dataset", "csv", "--data", str(data), "--recommender", "sasrec"]
    arguments += ["--option", "history=4", "--dimension", "4", "--optimizer", "adam"]
    assert main([*arguments, "--learning-rate", "0.01"]) == 0

    report = report_of(out)
    assert (report["recommender"], report["task"]) == ("sasrec", "new item")
    assert (report["devices"], report["trainers"]) == (12, 11)
    assert report["updates"]["accepted"] == 22
    assert report["settings"]["model"]["optimizer"] == "adam"
    assert "11   of 12" in (out / "report.html").read_text()
    split = split_latest(load_delimited(data))
    for user in range(split.user_count):
        held = history_on(out / "devices" / f"device-{user:05}")
        expected = [*split.train.items_of(user).tolist(), int(split.validation[user])]
        assert held.items.tolist() == expected


@pytest.mark.slow
def test_ctrl_c_reports_what_was_finished(tmp_path: Path) -> None:
    command = [str(FLEET), "demo", "--devices", "4", "--passes", "10000", "--out", str(tmp_path)]
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
    assert 0 < report["updates"]["accepted"] < 40_000
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
        (["--repeats"], "--repeats goes with --dataset frappe or csv"),
        (["--context-columns", "day"], "--context-columns goes with --dataset frappe or smartth"),
        (["--dataset", "frappe", "--data", "a", "b"], "--dataset frappe is one file; 2 are given"),
        (["--recommender", "mff"], "no recommender 'mff'; expected one of linear, mf"),
        (["--recommender", "nowhere.module:make"], "no module 'nowhere'"),
        (["--recommender", "linear", "--dimension", "8"], "linear has no option 'dimension'"),
        (["--option", "layers=2"], "mf has no option 'layers'; it has dimension, loss, bias"),
        (["--option", "bias=maybe"], "bias is 'maybe'; expected one of true, false"),
        (["--dimension", "0"], "dimension is 0; expected at least 1"),
        (["--recommender", "sasrec", "--option", "history=0"], "history is 0"),
    ],
)
def test_bad_arguments_are_named(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["demo", "--out", str(tmp_path / "run"), *arguments]) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_context_for_a_recommender_that_takes_none_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "events.csv"
    data.write_text("user,item,time,day\n" + "".join(f"a,i{n},{n},x\n" for n in range(5)))
    arguments = ["demo", "--dataset", "csv", "--data", str(data), "--context-columns", "day"]
    assert main([*arguments, "--out", str(tmp_path / "run")]) == 2
    assert "--context-columns is given, but mf takes no context" in capsys.readouterr().err
    arguments[-2:] = ["--recommender", "two_tower"]
    assert main([*arguments, "--out", str(tmp_path / "run")]) == 2
    assert "give features" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("option", ["layers", "=2"])
def test_an_option_without_name_or_value_is_refused(option: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["demo", "--option", option])
    assert stopped.value.code == 2


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
