"""The bench of the simulator: its arguments, and what its figures say."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from device_sims.bench import digests, fleet
from device_sims.bench.flower import comparison
from device_sims.datasets import split_latest, synthesise
from device_sims.scenario import Scenario


@pytest.mark.parametrize("hours", ["0", "-1", "nan", "inf", "soon"])
def test_hours_that_are_none(hours: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        fleet.main([f"--torture-hours={hours}"])
    assert ended.value.code == 2
    assert "--torture-hours" in capsys.readouterr().err


def test_a_part_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        fleet.main(["--only", "speed"])
    assert ended.value.code == 2
    assert "speed" in capsys.readouterr().err


def test_every_part_is_a_module() -> None:
    assert all(find_spec(command[0]) for command in fleet.parts(1.0).values())


def test_a_part_that_fails_does_not_stop_the_next(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[list[str]] = []

    def run(command: list[str]) -> subprocess.CompletedProcess[str]:
        ran.append(command)
        return subprocess.CompletedProcess(command, int("digests" in command[2]))

    monkeypatch.setattr(subprocess, "run", run)
    assert fleet.main(["--only", "torture", "digests", "--torture-hours", "0.5"]) == 1
    assert ran == [
        [sys.executable, "-m", *fleet.parts(0.5)[name]] for name in ("digests", "torture")
    ]
    assert "failed: digests" in capsys.readouterr().err


@pytest.mark.parametrize(("last", "different"), [("a", 1), ("b", 2)])
def test_digests_are_met_only_if_equal(last: str, different: int) -> None:
    (figure,) = digests.figures({"once": "a", "again": "a", "Ray": last})
    assert (figure.value, figure.met) == (different, different == 1)


def test_flower_reads_the_same_task_and_histories(tmp_path: Path) -> None:
    scenario = Scenario.from_dict({"task": {"training": {"negatives": 3}}}, name="")
    split = split_latest(synthesise(users=5))
    comparison.write_task(tmp_path, scenario, split)
    options = json.loads((tmp_path / "task.json").read_text())
    training = scenario.model.training
    assert options["negatives"] == 3
    assert options["items"] == split.item_count
    assert (options["epochs"], options["batch_size"]) == (training.epochs, training.batch_size)
    with np.load(tmp_path / "histories.npz") as stored:
        histories = np.split(stored["items"], stored["starts"][1:-1])
    assert [one.tolist() for one in histories] == [
        split.train.items_of(user).tolist() for user in range(5)
    ]


def test_flowers_first_round_is_its_start() -> None:
    theirs = {"start_s": 9.0, "rounds_s": [2.0, 3.0], "answers": [7, 10, 10]}
    (figure,) = comparison.figures(400.0, 4_000, theirs)
    assert figure.value == pytest.approx(400.0 / (20 / 5.0))
    assert "Flower 4.0 in 20" in figure.compared_with
