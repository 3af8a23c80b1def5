"""``rivulet-aggregator serve`` as a process: its words, its errors, its end."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from aggregator.command import main
from aggregator.settings import PREFIX
from tests.aggregator.device import eventually
from tests.aggregator.mosquitto import Mosquitto, free_port
from tests.aggregator.process import AggregatorProcess
from wire.bundle import Bundle


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(PREFIX):
            monkeypatch.delenv(name)


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    with Mosquitto(tmp_path / "mosquitto") as broker:
        yield broker


def errors_of(capfd: pytest.CaptureFixture[str]) -> list[str]:
    """What was written to stderr, without log lines."""
    lines = capfd.readouterr().err.splitlines()
    return [line for line in lines if line.startswith("rivulet-aggregator: ")]


def serve(tmp_path: Path, *flags: str) -> int:
    data, broker = str(tmp_path / "data"), f"mqtt://127.0.0.1:{free_port()}"
    return main(["serve", "--data", data, "--broker", broker, "--port", "0", *flags])


def test_a_busy_port_is_one_line_and_code_2(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert serve(tmp_path, "--port", str(port)) == 2
    assert errors_of(capfd) == [
        f"rivulet-aggregator: error: cannot listen on 127.0.0.1:{port}: Address already in use; "
        "choose another --port"
    ]


def test_devices_that_have_no_names_are_one_line_and_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    devices = tmp_path / "devices"
    devices.write_text("phone-1\nPhone 2\n")
    monkeypatch.setenv(PREFIX + "DEVICES_FILE", str(devices))
    assert serve(tmp_path) == 2
    (line,) = errors_of(capfd)
    assert f"{devices}, line 2: device id is 'Phone 2'; expected" in line


def test_a_truncated_bundle_is_one_line_and_code_2(
    tmp_path: Path, bundle: Bundle, capfd: pytest.CaptureFixture[str]
) -> None:
    parameters = bundle.root / "parameters.safetensors"
    parameters.write_bytes(parameters.read_bytes()[:-1])
    assert serve(tmp_path, "--bundle", str(bundle.root)) == 2
    (line,) = errors_of(capfd)
    assert "parameters.safetensors has" in line


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--bundle", "/nowhere"], "not a bundle"),
        (["--config", "/nowhere.toml"], "cannot read /nowhere.toml"),
        (["--host", "0.0.0.0"], "api_token"),
        (["--port", "many"], "port is 'many'"),
        (["--data", "/dev/null/x"], "cannot write to /dev/null/x"),
    ],
)
def test_what_is_told_wrong_is_one_line_and_code_2(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], flags: list[str], sentence: str
) -> None:
    assert serve(tmp_path, *flags) == 2
    (line,) = errors_of(capfd)
    assert sentence in line


def test_a_database_that_cannot_be_opened_is_code_1(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert serve(tmp_path, "--database", "sqlite:////nowhere/ledger.db") == 1
    (line,) = errors_of(capfd)
    assert "cannot write to /nowhere" in line


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["serve", "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert "rule.buffer_size" in text
    assert "examples:" in text


def test_it_says_where_it_is_and_when_it_is_ready(
    tmp_path: Path, bundle: Bundle, mosquitto: Mosquitto
) -> None:
    with AggregatorProcess(tmp_path / "data", mosquitto.port, bundle) as aggregator:
        aggregator.wait_until_ready()
        output = aggregator.output()
        assert f"listening on {aggregator.url}, dashboard at {aggregator.url}/dashboard" in output
        eventually(lambda: f"ready: updates arrive from {mosquitto.url}" in aggregator.output())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_cleanly(
    tmp_path: Path, bundle: Bundle, mosquitto: Mosquitto, number: signal.Signals
) -> None:
    with AggregatorProcess(tmp_path / "data", mosquitto.port, bundle) as aggregator:
        aggregator.wait_until_ready()
        assert aggregator.end(number) == 0
        assert "Traceback" not in aggregator.output()


def test_a_data_folder_has_one_aggregator(
    tmp_path: Path, bundle: Bundle, mosquitto: Mosquitto, capfd: pytest.CaptureFixture[str]
) -> None:
    with AggregatorProcess(tmp_path / "data", mosquitto.port, bundle) as aggregator:
        aggregator.wait_until_ready()
        assert serve(tmp_path) == 2
    (line,) = errors_of(capfd)
    assert "in use by another aggregator" in line


def test_a_broker_that_is_not_there_is_waited_for_with_the_api_up(
    tmp_path: Path, bundle: Bundle
) -> None:
    late = Mosquitto(tmp_path / "late")
    with AggregatorProcess(tmp_path / "data", late.port, bundle) as aggregator:
        eventually(lambda: aggregator.get("/healthz").status_code == 200)
        unready = aggregator.get("/readyz")
        assert unready.status_code == 503
        assert "broker" in unready.json()["problems"]
        assert aggregator.get("/v1/tasks").json()[0]["task"] == bundle.task
        eventually(lambda: "cannot reach the broker" in aggregator.output())
        with late:
            aggregator.wait_until_ready()


def test_a_wrong_password_is_one_line_and_code_2(tmp_path: Path, bundle: Bundle) -> None:
    folder = tmp_path / "protected"
    folder.mkdir()
    passwords = folder / "passwords"
    subprocess.run(["mosquitto_passwd", "-c", "-b", passwords, "aggregator", "right"], check=True)
    lines = ["allow_anonymous false", f"password_file {passwords}"]
    environment = {PREFIX + "USERNAME": "aggregator", PREFIX + "PASSWORD": "wrong"}
    with (
        Mosquitto(folder, lines) as broker,
        AggregatorProcess(
            tmp_path / "data", broker.port, bundle, environment=environment
        ) as aggregator,
    ):
        assert aggregator.wait() == 2
        output = aggregator.output()
    assert "refuses the user name or password" in output.splitlines()[-1]
    assert "wrong" not in output
    assert "Traceback" not in output


def test_the_module_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "aggregator", "--help"], capture_output=True, text=True, check=True
    )
    assert "serve" in done.stdout
