"""The roles as real processes on a real Mosquitto and PostgreSQL, killed in turn under load."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from aggregator.blobs import FolderBlobs
from aggregator.fold import Fold
from aggregator.ledger import Ledger, Reports, open_database
from aggregator.settings import PREFIX
from device_sims.postgresql import PostgreSQL
from tests.aggregator.device import Device, eventually
from tests.aggregator.fleet import Fleet
from tests.aggregator.mosquitto import Mosquitto
from tests.aggregator.process import AggregatorProcess
from tests.aggregator.workshop import make_bundle, make_update
from wire.bundle import Bundle
from wire.messages import Outcome

BUFFER = 8
ENVIRONMENT = {
    PREFIX + "RULE_BUFFER_SIZE": str(BUFFER),
    PREFIX + "RETENTION_SNAPSHOT_EVERY": "100",
    PREFIX + "ANNOUNCE_INTERVAL_S": "0.1",
    PREFIX + "ADMISSION_MAX_STALENESS": "100000",
}
HAND_OVER_S = 10.0


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(PREFIX):
            monkeypatch.delenv(name)


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    with Mosquitto(tmp_path / "mosquitto") as broker:
        yield broker


class Site:
    """Two that ingest, two that could merge and one that answers HTTP, on one set of blobs."""

    def __init__(self, folder: Path, broker_port: int, database: str) -> None:
        self.blobs = folder / "blobs"
        self._folder, self._broker_port = folder, broker_port
        self._environment = {**ENVIRONMENT, PREFIX + "DATABASE": database}
        self.api = self._process("api")
        self.merges = [self._process("merge", n) for n in (1, 2)]
        self.ingests = [self._process("ingest", n) for n in (1, 2)]
        self.all = [self.api, *self.merges, *self.ingests]

    def _process(self, role: str, number: int = 1) -> AggregatorProcess:
        return AggregatorProcess(
            self._folder / f"{role}-{number}",
            self._broker_port,
            None,
            *("--role", role, "--blobs", str(self.blobs)),
            environment=self._environment,
        )

    def wait_until_ready(self) -> None:
        for process in self.all:
            process.wait_until_ready()

    def wait_until_one_merges(self) -> AggregatorProcess:
        """Exactly one works, and the other stands by."""
        found: list[AggregatorProcess] = eventually(self._merging, deadline_s=HAND_OVER_S * 3)
        return found[0]

    def _merging(self) -> list[AggregatorProcess]:
        states = [process.get("/readyz").json()["state"] for process in self.merges]
        if sorted(states) != ["standing by", "working"]:
            return []
        return [self.merges[states.index("working")]]

    def create_task(self, bundle: Bundle) -> None:
        """As an operator does, through the API."""
        for entry in bundle.manifest.files:
            content = bundle.path(entry).read_bytes()
            httpx.put(f"{self.api.url}/v1/blobs/{entry.sha256}", content=content).raise_for_status()
        made = httpx.post(f"{self.api.url}/v1/tasks", content=bundle.raw_manifest, timeout=40)
        assert (made.status_code, made.json()) == (201, {"task": bundle.task})


@pytest.fixture
def site(tmp_path: Path, mosquitto: Mosquitto, postgresql_url: str) -> Iterator[Site]:
    site = Site(tmp_path, mosquitto.port, postgresql_url)
    try:
        site.wait_until_ready()
        site.wait_until_one_merges()
        yield site
    finally:
        for process in site.all:
            process.kill()


def test_commands_reach_who_merges_and_errors_come_back(
    site: Site, bundle: Bundle, mosquitto: Mosquitto
) -> None:
    url = site.api.url
    missing = httpx.post(f"{url}/v1/tasks", content=bundle.raw_manifest)
    assert missing.status_code == 409
    assert "upload the bundle's files" in missing.json()["detail"]
    assert httpx.post(f"{url}/v1/tasks", content=b"{}").status_code == 422
    site.create_task(bundle)
    refused = httpx.patch(f"{url}/v1/tasks/{bundle.task}", json={"rule": {"buffer_size": 0}})
    assert refused.status_code == 422
    assert "buffer_size" in refused.json()["detail"]
    with Device(mosquitto.port) as device:
        eventually(lambda: device.announcements)
        steered = httpx.patch(f"{url}/v1/tasks/{bundle.task}", json={"paused": True})
        assert steered.json()["paused"] is True
        eventually(lambda: device.announcements[-1].paused)
    for process in (*site.merges, *site.ingests):
        assert process.get("/v1/tasks").status_code == 404
        assert process.get("/healthz").status_code == 200
        assert "rivulet_merging" in process.get("/metrics").text


def test_a_task_and_a_version_that_are_only_just_there_are_known(
    site: Site, bundle: Bundle, mosquitto: Mosquitto, tmp_path: Path
) -> None:
    site.create_task(bundle)
    with Device(mosquitto.port) as device:
        for number in range(1, 40):
            if number % 10 == 5:
                bundle = make_bundle(tmp_path / f"bundle-{number}", name=f"tiny-{number}")
                site.create_task(bundle)
            newest = [a.version for a in device.announcements if a.task == bundle.task]
            update = make_update(bundle, number, base=max(newest, default=0))
            device.send(update.encode())
            assert device.answer(number).outcome is Outcome.ACCEPTED


@pytest.mark.slow
def test_kill_9_of_each_in_turn_and_pauses_lose_nothing_and_merge_nothing_twice(
    site: Site, bundle: Bundle, mosquitto: Mosquitto, postgresql: PostgreSQL, postgresql_url: str
) -> None:
    site.create_task(bundle)
    with Fleet(mosquitto.port, bundle, devices=4) as fleet:
        fleet.go_on()
        for victim in (*site.ingests, site.wait_until_one_merges(), site.api):
            victim.kill()
            fleet.go_on()
            victim.start()
            victim.wait_until_ready()
        other = site.wait_until_one_merges()
        assert other.end(signal.SIGTERM) == 0
        fleet.go_on()
        other.start()
        other.wait_until_ready()
        pause_the_database(site, postgresql)
        fleet.go_on()
        mosquitto.kill()
        eventually(lambda: not any(is_ready(ingest) for ingest in site.ingests))
        mosquitto.start()
        site.wait_until_ready()
        fleet.go_on()
        fleet.finish()
        answered = fleet.answered
    assert set().union(*answered.values()) <= {Outcome.ACCEPTED, Outcome.DUPLICATE}
    audit(postgresql_url, site.blobs, bundle, set(answered))
    tasks = site.api.get("/v1/tasks").json()
    assert [task["task"] for task in tasks] == [bundle.task]


@pytest.mark.slow
def test_a_merge_that_lost_its_lock_while_it_slept_stands_by_when_it_wakes(
    site: Site, bundle: Bundle, mosquitto: Mosquitto, postgresql: PostgreSQL, postgresql_url: str
) -> None:
    site.create_task(bundle)
    with Fleet(mosquitto.port, bundle, devices=2) as fleet:
        fleet.go_on()
        sleeper = site.wait_until_one_merges()
        successor = site.merges[1 - site.merges.index(sleeper)]
        sleeper.pause()
        postgresql.hang_up(postgresql_url)
        eventually(lambda: successor.get("/readyz").json()["state"] == "working")
        fleet.go_on()
        sleeper.resume()
        assert site.wait_until_one_merges() is successor
        fleet.go_on()
        fleet.finish()
        answered = set(fleet.answered)
    audit(postgresql_url, site.blobs, bundle, answered)


def pause_the_database(site: Site, postgresql: PostgreSQL) -> None:
    postgresql.stop()
    try:
        eventually(lambda: not any(is_ready(process) for process in site.all))
    finally:
        postgresql.start()
    site.wait_until_ready()
    site.wait_until_one_merges()


def is_ready(process: AggregatorProcess) -> bool:
    return process.get("/readyz").status_code == 200


def audit(url: str, blobs: Path, bundle: Bundle, expected: set[tuple[str, int]]) -> None:
    """Count in the ledger what was taken and merged, and fold it again from the start."""
    database = open_database(url)
    ledger, reports = Ledger(database), Reports(database)
    eventually(lambda: reports.pending(bundle.task) < BUFFER)
    newest = ledger.newest_version(bundle.task)
    members: list[int] = []
    for version in ledger.between(bundle.task, 1, newest.version):
        taken = [member.id for member in ledger.members(bundle.task, version.version)]
        assert len(taken) == version.updates
        members += taken
    assert len(members) == len(set(members))
    listed = reports.updates(bundle.task, limit=100_000)
    assert len(listed) == len(expected)
    assert {(update.device, update.sequence) for update in listed} == expected
    assert {update.id for update in listed if update.merged_in is not None} == set(members)
    folder, specs = FolderBlobs(blobs), bundle.manifest.federated
    for snapshot, sha256 in ledger.snapshots(bundle.task):
        if snapshot:
            folder.delete(sha256)
    folded = Fold(ledger, bundle.task, specs).rebuild(folder, newest.version)
    assert folded.digest == newest.digest
    assert folded.replayed == len(members)
    database.dispose()
