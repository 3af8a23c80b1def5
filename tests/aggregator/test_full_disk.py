"""A disk without space: refused by name, nothing lost, and all well once there is space."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from aggregator.ledger import LedgerUnavailableError
from aggregator.settings import PREFIX
from tests.aggregator.device import Device, eventually
from tests.aggregator.mosquitto import Mosquitto
from tests.aggregator.process import AggregatorProcess
from tests.aggregator.small_disk import SmallDisk, small_disk
from tests.aggregator.workshop import Workshop, make_update
from wire.bundle import Bundle
from wire.messages import Outcome

NAME = "storage-full"
FIRST, LAST = 4, 8
SETTINGS = {"RULE_BUFFER_SIZE": "2", "RETENTION_SNAPSHOT_EVERY": "2", "ANNOUNCE_INTERVAL_S": "0"}


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    with Mosquitto(tmp_path / "mosquitto") as broker:
        yield broker


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    if os.getuid() != 0:
        pytest.skip("only root can mount a small disk")
    try:
        with small_disk(tmp_path / "disk", megabytes=8) as disk:
            yield disk
    except subprocess.CalledProcessError:
        pytest.skip("this system lets even root mount nothing")


def problems(aggregator: AggregatorProcess) -> str:
    return str(aggregator.get("/readyz").json()["problems"])


def live_through(
    disk: SmallDisk,
    aggregator: AggregatorProcess,
    device: Device,
    bundle: Bundle,
    *,
    refused: Callable[[], bool],
) -> None:
    """Some updates, a full disk, some more, and space again."""
    for number in range(1, FIRST + 1):
        device.send(make_update(bundle, number).encode())
        assert device.answer(number).outcome is Outcome.ACCEPTED
    disk.fill()
    for number in range(FIRST + 1, LAST + 1):
        device.send(make_update(bundle, number).encode())
    eventually(lambda: NAME in problems(aggregator))
    assert refused()
    disk.empty()
    for number in range(FIRST + 1, LAST + 1):
        assert device.answer(number).outcome in (Outcome.ACCEPTED, Outcome.DUPLICATE)
    eventually(lambda: aggregator.get("/readyz").status_code == 200)
    eventually(lambda: device.announcements[-1].version == LAST // 2)
    updates = aggregator.get(f"/v1/tasks/{bundle.task}/summary").json()["updates"]
    assert (updates["accepted"], updates["pending"]) == (LAST, 0)


def test_a_full_disk_of_the_ledger(
    tmp_path: Path, disk: SmallDisk, mosquitto: Mosquitto, bundle: Bundle
) -> None:
    database = f"sqlite:///{disk.folder / 'ledger.db'}"
    environment = {PREFIX + key: value for key, value in SETTINGS.items()}
    with (
        AggregatorProcess(
            tmp_path / "data",
            mosquitto.port,
            bundle,
            environment={**environment, PREFIX + "DATABASE": database},
        ) as aggregator,
        Device(mosquitto.port) as device,
    ):
        aggregator.wait_until_ready()
        live_through(
            disk, aggregator, device, bundle, refused=lambda: not device.answers(FIRST + 1)
        )


def test_a_full_disk_of_the_blobs(
    tmp_path: Path, disk: SmallDisk, mosquitto: Mosquitto, bundle: Bundle
) -> None:
    blobs = disk.folder / "blobs"
    environment = {PREFIX + key: value for key, value in SETTINGS.items()}
    with (
        AggregatorProcess(
            tmp_path / "data",
            mosquitto.port,
            bundle,
            environment={**environment, PREFIX + "BLOBS": str(blobs)},
        ) as aggregator,
        Device(mosquitto.port) as device,
    ):
        aggregator.wait_until_ready()
        live_through(
            disk,
            aggregator,
            device,
            bundle,
            # What is accepted goes into the ledger; no device is sent to a file that is not there.
            refused=lambda: device.announcements[-1].version <= FIRST // 2,
        )


def test_a_ledger_that_may_not_grow_takes_nothing_and_then_everything(
    workshop: Workshop, bundle: Bundle
) -> None:
    updates = [make_update(bundle, number) for number in range(1, 4)]
    with workshop.ledger._database.connect() as connection:
        raw = connection.connection.cursor()
        before = raw.execute("PRAGMA max_page_count").fetchone()
    limit_pages(workshop, 1)
    many = [make_update(bundle, number) for number in range(10, 200)]
    with pytest.raises(LedgerUnavailableError, match=NAME):
        workshop.send("a", *updates, *many)
    assert workshop.outbox.acknowledged == []
    assert workshop.outbox.receipts("a") == []
    limit_pages(workshop, before[0])
    workshop.send("a", *updates, *many)
    assert len(workshop.reports.updates(bundle.task, limit=1000)) == len(updates) + len(many)


def limit_pages(workshop: Workshop, pages: int) -> None:
    """SQLite takes what the file has already for a lower bound."""
    with workshop.ledger._database.connect() as connection:
        connection.connection.cursor().execute(f"PRAGMA max_page_count={pages}")
