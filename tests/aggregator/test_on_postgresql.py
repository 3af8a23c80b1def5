"""``rivulet-aggregator serve`` on a real PostgreSQL: what goes wrong with it, and comes right."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from aggregator.command import main
from aggregator.settings import PREFIX
from device_sims.postgresql import PASSWORD, PostgreSQL
from tests.aggregator.device import Device, eventually
from tests.aggregator.mosquitto import Mosquitto, free_port
from tests.aggregator.process import AggregatorProcess
from tests.aggregator.workshop import make_update
from wire.bundle import Bundle
from wire.messages import Outcome

DATABASE = PREFIX + "DATABASE"


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(PREFIX):
            monkeypatch.delenv(name)


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    with Mosquitto(tmp_path / "mosquitto") as broker:
        yield broker


def serve(data: Path, database: str, patch: pytest.MonkeyPatch) -> int:
    patch.setenv(DATABASE, database)
    broker = f"mqtt://127.0.0.1:{free_port()}"
    return main(["serve", "--data", str(data), "--broker", broker, "--port", "0"])


def test_a_database_that_goes_away_and_comes_back_costs_nothing(
    tmp_path: Path,
    bundle: Bundle,
    mosquitto: Mosquitto,
    postgresql: PostgreSQL,
    postgresql_url: str,
) -> None:
    environment = {DATABASE: postgresql_url, PREFIX + "RULE_BUFFER_SIZE": "4"}
    with (
        AggregatorProcess(
            tmp_path / "data", mosquitto.port, bundle, environment=environment
        ) as aggregator,
        Device(mosquitto.port) as device,
    ):
        aggregator.wait_until_ready()
        for number in (1, 2):
            device.send(make_update(bundle, number).encode())
            assert device.answer(number).outcome is Outcome.ACCEPTED
        postgresql.kill()
        try:
            device.send(make_update(bundle, 3).encode())
            eventually(lambda: "1 messages wait for the database" in aggregator.output())
            assert aggregator.get("/readyz").status_code == 503
            assert aggregator.get("/v1/tasks").status_code == 503
            assert device.answers(3) == []
        finally:
            postgresql.start()
        assert device.answer(3).outcome is Outcome.ACCEPTED
        device.send(make_update(bundle, 4).encode())
        eventually(lambda: device.announcements[-1].version == 1)
        aggregator.wait_until_ready()
        version = aggregator.get(f"/v1/tasks/{bundle.task}/versions/1").json()
        assert version["updates"] == 4
        assert PASSWORD not in aggregator.output()


def test_with_a_bucket_beside_it_the_machine_may_be_lost(
    tmp_path: Path, bundle: Bundle, mosquitto: Mosquitto, postgresql_url: str, bucket_url: str
) -> None:
    environment = {
        DATABASE: postgresql_url,
        PREFIX + "BLOBS": bucket_url,
        PREFIX + "RULE_BUFFER_SIZE": "2",
    }

    def aggregator_on(data: str) -> AggregatorProcess:
        return AggregatorProcess(
            tmp_path / data,
            mosquitto.port,
            bundle,
            "--announce-interval=0",
            environment=environment,
        )

    with Device(mosquitto.port) as device:
        with aggregator_on("first") as aggregator:
            aggregator.wait_until_ready()
            for number in (1, 2, 3):
                device.send(make_update(bundle, number).encode())
                assert device.answer(number).outcome is Outcome.ACCEPTED
            eventually(lambda: device.announcements[-1].version == 1)
            sha256 = device.announcements[-1].sha256
            content = aggregator.get(f"/v1/blobs/{sha256}").content
            aggregator.kill()
        with aggregator_on("second") as aggregator:
            aggregator.wait_until_ready()
            assert aggregator.get(f"/v1/blobs/{sha256}").content == content
            device.send(make_update(bundle, 3).encode())
            eventually(lambda: len(device.answers(3)) == 2)
            assert device.answers(3)[1].outcome is Outcome.DUPLICATE
            device.send(make_update(bundle, 4).encode())
            eventually(lambda: device.announcements[-1].version == 2)
    assert hashlib.sha256(content).hexdigest() == sha256


def test_a_database_has_one_aggregator(
    tmp_path: Path,
    bundle: Bundle,
    mosquitto: Mosquitto,
    postgresql_url: str,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    environment = {DATABASE: postgresql_url}
    with AggregatorProcess(
        tmp_path / "data", mosquitto.port, bundle, environment=environment
    ) as aggregator:
        aggregator.wait_until_ready()
        assert serve(tmp_path / "elsewhere", postgresql_url, monkeypatch) == 2
        aggregator.kill()
        aggregator.start()
        aggregator.wait_until_ready()
    lines = capfd.readouterr().err.splitlines()
    assert "rivulet-aggregator: error: the database is in use by another aggregator" in lines


def test_what_the_database_says_at_the_start_is_one_line_without_the_password(
    tmp_path: Path,
    postgresql: PostgreSQL,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nobody_there = f"postgresql://rivulet:sesame@127.0.0.1:{free_port()}/x"
    assert serve(tmp_path / "data", nobody_there, monkeypatch) == 1
    assert serve(tmp_path / "data", postgresql.url(password="sesame"), monkeypatch) == 1
    written = capfd.readouterr().err
    assert "sesame" not in written
    lines = [line for line in written.splitlines() if line.startswith("rivulet-aggregator: ")]
    assert "refused" in lines[0]
    assert "password authentication failed" in lines[1]
    assert "Traceback" not in written
