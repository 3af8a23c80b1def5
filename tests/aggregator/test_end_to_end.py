"""A real service process and a real Mosquitto, with devices that send bytes."""

import hashlib
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from paho.mqtt.enums import MQTTProtocolVersion
from safetensors.numpy import load

from aggregator.blobs import FolderBlobs
from aggregator.fold import Fold
from aggregator.ledger import Ledger, Reports, open_database
from tests.aggregator.device import Device, eventually
from tests.aggregator.mosquitto import Mosquitto
from tests.aggregator.process import AggregatorProcess
from tests.aggregator.workshop import make_bundle, make_delta, make_update
from wire.bundle import Bundle
from wire.delta import add
from wire.messages import Metric, Outcome, Refusal, Update

FLAGS = ("--announce-interval", "0")
BUFFER = 3
ENVIRONMENT = {"RIVULET_AGGREGATOR_RULE_BUFFER_SIZE": str(BUFFER)}


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    with Mosquitto(tmp_path / "mosquitto") as broker:
        yield broker


@pytest.fixture
def aggregator(tmp_path: Path, bundle: Bundle, mosquitto: Mosquitto) -> Iterator[AggregatorProcess]:
    with AggregatorProcess(
        tmp_path / "data", mosquitto.port, bundle, *FLAGS, environment=ENVIRONMENT
    ) as process:
        process.wait_until_ready()
        yield process


def test_from_announcement_to_a_new_version(
    aggregator: AggregatorProcess, mosquitto: Mosquitto, bundle: Bundle
) -> None:
    with Device(mosquitto.port) as device:
        eventually(lambda: device.announcements)
        first = device.announcements[0]
        assert (first.task, first.version) == (bundle.task, 0)
        before = load(aggregator.get(f"/v1/blobs/{first.sha256}").content)
        delta = make_delta(bundle, 1)
        metrics = {Metric.HR_AT_10: 1.0}
        for number in range(1, BUFFER + 1):
            update = make_update(bundle, number, delta=delta, metrics=metrics)
            device.send(update.encode())
            assert device.answer(number).outcome is Outcome.ACCEPTED
        eventually(lambda: device.announcements[-1].version == 1)
        newest = device.announcements[-1]
        raw = aggregator.get(f"/v1/blobs/{newest.sha256}").content
        assert hashlib.sha256(raw).hexdigest() == newest.sha256
        assert len(raw) == newest.size_bytes
        head = delta["head"]
        assert isinstance(head, np.ndarray)
        # Rounded to about a hundredth of their root mean square.
        np.testing.assert_allclose(load(raw)["head"] - before["head"], head, atol=0.01)
        summary = aggregator.get(f"/v1/tasks/{bundle.task}/summary").json()
        assert summary["updates"]["accepted"] == BUFFER
        assert summary["quality"] == [
            {
                "version": 0,
                "reports": BUFFER,
                "hr_at_10": 1.0,
                "ndcg_at_10": None,
                "eval_loss": None,
                "train_loss": None,
            }
        ]


def with_word(payload: bytes, old: np.float32, new: np.float32) -> bytes:
    """A payload with one float32 in place of another; raw values need not start at a byte."""
    bits = "".join(f"{octet:08b}" for octet in payload)
    before, after = (f"{int(value.view(np.uint32)):032b}" for value in (old, new))
    assert bits.count(before) == 1
    return int(bits.replace(before, after), 2).to_bytes(len(payload), "big")


def test_bad_input_is_counted_and_answered_and_loses_nothing(
    aggregator: AggregatorProcess, mosquitto: Mosquitto, bundle: Bundle, tmp_path: Path
) -> None:
    stranger = make_bundle(tmp_path / "stranger", name="stranger")
    good = make_update(bundle, 1)
    head = make_delta(bundle, 3)["head"]
    assert isinstance(head, np.ndarray)
    nan = with_word(make_update(bundle, 3).payload, head[0], np.float32(np.nan))
    bad: dict[Refusal, Update] = {
        Refusal.UNKNOWN_TASK: make_update(stranger, 2),
        Refusal.NOT_FINITE: with_payload(bundle, 3, nan),
        Refusal.WRONG_SHAPE: with_payload(bundle, 4, b"\x10garbage"),
        Refusal.FROM_THE_FUTURE: make_update(bundle, 5, base=100),
        Refusal.NORM: make_update(bundle, 6, delta=add({}, make_delta(bundle, 6), 1e5)),
    }
    with Device(mosquitto.port) as device:
        for rubbish in (b"", b"not CBOR \xff", b"\xa0", good.encode()[:-3]):
            device.send(rubbish)
        for update in bad.values():
            device.send(update.encode())
        device.send(good.encode())
        assert device.answer(1).outcome is Outcome.ACCEPTED
        for reason, update in bad.items():
            receipt = device.answer(update.sequence)
            assert (receipt.outcome, receipt.reason) == (Outcome.REJECTED, reason)
    summary = aggregator.get(f"/v1/tasks/{bundle.task}/summary").json()
    assert summary["refusals"] == {"malformed": 4, **{reason.slug: 1 for reason in bad}}
    assert summary["updates"]["accepted"] == 1
    assert 'rivulet_refusals_total{reason="not-finite"} 1.0' in aggregator.get("/metrics").text


def with_payload(bundle: Bundle, sequence: int, payload: bytes) -> Update:
    return Update(task=bundle.task, sequence=sequence, base_version=0, examples=1, payload=payload)


@pytest.mark.parametrize("protocol", [MQTTProtocolVersion.MQTTv5, MQTTProtocolVersion.MQTTv311])
def test_a_second_delivery_is_a_duplicate(
    aggregator: AggregatorProcess,
    mosquitto: Mosquitto,
    bundle: Bundle,
    protocol: MQTTProtocolVersion,
) -> None:
    with Device(mosquitto.port, protocol=protocol) as device:
        for _ in range(3):
            device.send(make_update(bundle, 1).encode())
        eventually(lambda: len(device.answers(1)) == 3)
        outcomes = [receipt.outcome for receipt in device.answers(1)]
        assert outcomes == [Outcome.ACCEPTED, Outcome.DUPLICATE, Outcome.DUPLICATE]
    listed = aggregator.get(f"/v1/tasks/{bundle.task}/updates").json()
    assert [update["sequence"] for update in listed] == [1]


def test_the_operator_steers_and_devices_hear_it(
    aggregator: AggregatorProcess, mosquitto: Mosquitto, bundle: Bundle
) -> None:
    with Device(mosquitto.port) as device:
        changes = {"paused": True, "training": {"learning_rate": 0.125}}
        answer = httpx.patch(f"{aggregator.url}/v1/tasks/{bundle.task}", json=changes)
        assert answer.status_code == 200
        eventually(lambda: device.announcements and device.announcements[-1].paused)
        assert device.announcements[-1].training.learning_rate == 0.125


def test_a_restarted_broker_is_told_everything_again(
    aggregator: AggregatorProcess, mosquitto: Mosquitto, bundle: Bundle
) -> None:
    with Device(mosquitto.port) as device:
        device.send(make_update(bundle, 1).encode())
        device.answer(1)
    mosquitto.kill()
    eventually(lambda: aggregator.get("/readyz").status_code == 503)
    mosquitto.start()
    aggregator.wait_until_ready()
    with Device(mosquitto.port, "device-2") as device:
        eventually(lambda: device.announcements)
        device.send(make_update(bundle, 1, seed=9).encode())
        assert device.answer(1).outcome is Outcome.ACCEPTED


@pytest.mark.slow
def test_kill_9_under_load_loses_nothing_and_merges_nothing_twice(
    tmp_path: Path, aggregator: AggregatorProcess, mosquitto: Mosquitto, bundle: Bundle
) -> None:
    updates = {n: make_update(bundle, n).encode() for n in range(1, 301)}
    rng = random.Random(5)
    with Device(mosquitto.port) as device:
        for last in (75, 150, 225, 300):
            live_and_die(device, aggregator, updates, last=last, answered=last - rng.randrange(55))
        outcomes = Counter(device.answers(n)[0].outcome for n in updates)
        assert set(outcomes) <= {Outcome.ACCEPTED, Outcome.DUPLICATE}
    # An update is answered when it is durable, and merged a moment later.
    eventually(lambda: pending(tmp_path / "data", bundle) < BUFFER)
    aggregator.kill()
    audit(tmp_path / "data", bundle, set(updates))


def live_and_die(
    device: Device,
    aggregator: AggregatorProcess,
    updates: dict[int, bytes],
    *,
    last: int,
    answered: int,
) -> None:
    """Send 75 updates, kill the service when so many are answered, restart it, get all answers."""
    for number in range(last - 74, last + 1):
        device.send(updates[number])
    eventually(lambda: len(device.receipts) >= answered)
    aggregator.kill()
    aggregator.start()
    aggregator.wait_until_ready()
    for number in unanswered(device, updates, last):
        device.send(updates[number])
    eventually(lambda: not unanswered(device, updates, last))


def unanswered(device: Device, updates: dict[int, bytes], last: int) -> list[int]:
    answered = {receipt.sequence for receipt in list(device.receipts)}
    return [n for n in updates if n <= last and n not in answered]


def pending(data: Path, bundle: Bundle) -> int:
    database = open_database(f"sqlite:///{data / 'ledger.db'}")
    waiting = Reports(database).pending(bundle.task)
    database.dispose()
    return waiting


def audit(data: Path, bundle: Bundle, expected: set[int]) -> None:
    """Count in the ledger what was taken and merged, and fold it again."""
    database = open_database(f"sqlite:///{data / 'ledger.db'}")
    ledger, reports = Ledger(database), Reports(database)
    listed = reports.updates(bundle.task, limit=1000)
    assert {update.sequence for update in listed} == expected
    assert len(listed) == len(expected)
    newest = ledger.newest_version(bundle.task)
    merged = [update.id for update in listed if update.merged_in is not None]
    versions = list(ledger.between(bundle.task, 0, newest.version))
    assert sum(version.updates for version in versions) == len(merged)
    assert len(expected) - len(merged) < BUFFER
    blobs, specs = FolderBlobs(data / "blobs"), bundle.manifest.federated
    for version, sha256 in ledger.snapshots(bundle.task):
        if version:
            blobs.delete(sha256)
    folded = Fold(ledger, bundle.task, specs).rebuild(blobs, newest.version)
    assert folded.digest == newest.digest
    database.dispose()
