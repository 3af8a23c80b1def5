"""The bench of the simulator: its arguments, and what its figures say."""

import subprocess
import sys
from importlib.util import find_spec

import pytest

from device_sims.bench import digests, fleet


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
