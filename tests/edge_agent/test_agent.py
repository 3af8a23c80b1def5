"""The agent's decisions, on a clock and a network that do what the test says."""

import dataclasses
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_agent.config import OutboxLimits
from edge_agent.errors import (
    PermanentDownloadError,
    StoreError,
    TransientDownloadError,
)
from edge_agent.interactions import Interaction
from edge_agent.runtimes import Array, Program, ProgramFile
from tests.edge_agent.fakes import RUNTIME, Device, MemorySource, config_for
from tests.edge_agent.history_task import make_context_task, make_sequence_task
from tests.edge_agent.tiny_task import ITEMS, TRAINING, TinyTask, make_task
from wire import topics
from wire.delta import FloatArray, add, squared_norm
from wire.manifest import Capacity, Manifest
from wire.messages import Metric, Outcome, Refusal, Update
from wire.policy import CodecMode, CodecPolicy, TrainingPolicy

HISTORY = (3, 14, 15, 9, 26, 5)


@pytest.fixture
def device(tmp_path: Path, task: TinyTask) -> Device:
    return Device(tmp_path, task)


def test_first_update_is_due_at_once_and_the_next_after_the_interval(device: Device) -> None:
    assert device.agent.next_due() is None
    device.ready(*HISTORY)
    assert device.agent.update_due()
    device.update()
    assert not device.agent.update_due()
    wait = device.agent.next_due(training=True)
    assert wait is not None
    assert 10.0 <= wait - device.clock.now <= 11.0
    device.clock.now += 11.0
    assert device.agent.update_due()


def test_update_names_its_base_and_reports_numbers(device: Device) -> None:
    device.ready(*HISTORY)
    device.hear(device.task.announce(7))
    update = device.update()
    assert (update.task, update.base_version) == (device.task.task, 7)
    assert update.examples == len(HISTORY) - 1
    assert set(update.metrics) == set(Metric)


def test_without_holdout_the_latest_interaction_is_trained_on(
    tmp_path: Path, task: TinyTask
) -> None:
    device = Device(tmp_path, task, config=config_for(tmp_path, holdout=False))
    device.ready(*HISTORY)
    update = device.update()
    assert update.examples == len(HISTORY)
    assert set(update.metrics) == {Metric.TRAIN_LOSS}


def test_one_interaction_is_trained_on_and_not_held_out(device: Device) -> None:
    device.ready(4)
    assert device.update().examples == 1


@pytest.mark.parametrize("missing", ["history", "announcement", "connection"])
def test_nothing_is_trained_without(device: Device, missing: str) -> None:
    if missing != "history":
        device.log(*HISTORY)
    if missing != "connection":
        device.agent.connected()
    if missing != "announcement":
        device.hear(device.task.announce())
    assert not device.agent.update_due()
    assert device.agent.begin_update() is None
    assert device.source.asked == []


def test_first_interactions_from_another_process_are_noticed(device: Device) -> None:
    device.ready()
    assert not device.agent.update_due()
    assert device.agent.next_due() is not None
    device.store.add_interactions([Interaction(3, 1.0)])
    assert device.agent.update_due()


def test_pause_and_resume(device: Device) -> None:
    device.ready(*HISTORY)
    device.hear(device.task.announce(1, paused=True))
    assert not device.agent.update_due()
    assert device.agent.begin_update(early=True) is None
    device.hear(device.task.announce(1))
    assert device.agent.update_due()


def test_announced_policies_override_the_manifest(device: Device) -> None:
    device.ready(*HISTORY)
    raw = CodecPolicy(mode=CodecMode.RAW)
    small = len(device.update().payload)
    device.hear(device.task.announce(1, codec=raw))
    assert len(device.update().payload) > small
    slow = TrainingPolicy(**{**TRAINING.to_dict(), "interval_s": 500.0})
    device.hear(device.task.announce(2, training=slow))
    device.update()
    due = device.agent.next_due()
    assert due is not None
    device.answer_all()
    assert 500.0 <= (device.agent.next_due() or 0.0) - device.clock.now <= 550.0


def test_a_new_version_is_what_the_next_update_starts_from(device: Device) -> None:
    device.ready(*HISTORY)
    device.update()
    table = np.zeros_like(device.task.parameters()["table"])
    zeros = {"table": table, "bias": np.zeros(1, np.float32)}
    device.hear(device.task.announce(4, parameters=zeros))
    base = device.agent.begin_update(early=True)
    assert base is not None
    assert not base.parameters["table"][...].any()
    assert base.announcement.version == 4


def test_first_task_is_adopted_for_good_and_a_second_one_is_named(
    tmp_path: Path, task: TinyTask, caplog: pytest.LogCaptureFixture
) -> None:
    device, other = Device(tmp_path, task), make_task("another")
    assert device.agent.subscriptions()[1] == topics.ALL_ANNOUNCEMENTS
    device.ready(*HISTORY)
    with caplog.at_level(logging.WARNING):
        device.hear(other.announce(9))
        device.hear(other.announce(10))
    assert [other.task in record.getMessage() for record in caplog.records] == [True]
    assert device.agent.announcement is not None
    assert device.agent.announcement.version == 0
    device.restart()
    assert device.agent.task == task.task
    assert device.agent.subscriptions()[1] == topics.announcement(task.task)


def test_configured_task_ignores_others(tmp_path: Path, task: TinyTask) -> None:
    device = Device(tmp_path, task, config=config_for(tmp_path, task=task.task))
    device.hear(make_task("another").announce())
    assert device.agent.announcement is None
    device.hear(task.announce())
    assert device.agent.announcement is not None


def test_a_withdrawn_task_stops_training(device: Device) -> None:
    device.ready(*HISTORY)
    device.agent.receive(topics.announcement(device.task.task), b"")
    assert not device.agent.update_due()


@pytest.mark.parametrize(
    ("topic", "payload"),
    [
        (topics.announcement(make_task().task), b"\xff\x00garbage"),
        (topics.announcement(make_task().task), make_task("another").announce().encode()),
        (topics.receipts("dev-1"), b"\xa0"),
        (topics.receipts("dev-1"), b""),
        ("rivulet/v1/elsewhere", b"\xa0"),
        ("rivulet/v1/tasks/nonsense/announcement", b"\xa0"),
    ],
)
def test_bad_messages_are_logged_and_change_nothing(
    device: Device, topic: str, payload: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    device.log(*HISTORY)
    device.agent.connected()
    with caplog.at_level(logging.WARNING):
        device.agent.receive(topic, payload)
    assert len(caplog.records) == 1
    assert device.agent.announcement is None
    assert device.store.waiting().updates == 0


def test_transient_failure_backs_off_and_then_works(device: Device) -> None:
    device.ready(*HISTORY)
    device.source.fail_with = TransientDownloadError("the network is down")
    for attempt in range(1, 7):
        due = device.agent.next_due()
        assert due is not None
        device.clock.now = max(device.clock.now, due)
        assert device.agent.begin_update() is None
        assert len(device.source.asked) == attempt
    device.source.fail_with = None
    device.clock.now += 128.0
    assert device.agent.begin_update() is not None


class AwayTable:
    """A table whose rows cannot be had just now."""

    shape = (ITEMS, 2)

    def __getitem__(self, rows: object) -> FloatArray:
        raise TransientDownloadError(f"the network is down: {rows}")


def test_rows_that_cannot_be_had_cost_a_short_wait_and_nothing_else(device: Device) -> None:
    device.ready(*HISTORY)
    slow = TrainingPolicy(**{**TRAINING.to_dict(), "interval_s": 5000.0})
    device.hear(device.task.announce(1, training=slow))
    base = device.agent.begin_update()
    assert base is not None
    private = device.private()
    away = {name: AwayTable() for name in base.parameters}
    assert device.agent.finish_update(dataclasses.replace(base, parameters=away)) is None
    assert device.agent.outbox.waiting.updates == 0
    assert device.private() == private
    due = device.agent.next_due()
    assert due is not None
    assert due - device.clock.now <= 300.0
    device.clock.now = max(device.clock.now, due)
    assert device.agent.update_due()
    device.update()


def test_permanent_failure_waits_for_the_next_announcement(device: Device) -> None:
    device.ready(*HISTORY)
    device.source.fail_with = PermanentDownloadError("it was pruned")
    assert device.agent.begin_update() is None
    device.source.fail_with = None
    device.clock.now += 300.0
    assert not device.agent.update_due()
    device.hear(device.task.announce(1))
    assert device.agent.update_due()


def test_a_snapshot_larger_than_the_task_is_not_downloaded(
    device: Device, caplog: pytest.LogCaptureFixture
) -> None:
    device.ready(*HISTORY)
    announcement = device.task.announce(1)
    values = {name: getattr(announcement, name) for name in announcement.__slots__}
    device.hear(type(announcement)(**{**values, "size_bytes": 1 << 30}))
    assert device.agent.begin_update() is None
    assert announcement.sha256 not in device.source.asked
    assert "announced with 1073741824 bytes" in caplog.text


def test_wrong_parameters_are_refused(device: Device, caplog: pytest.LogCaptureFixture) -> None:
    device.ready(*HISTORY)
    wrong = {"table": np.zeros((3, 4), np.float32), "bias": np.zeros(1, np.float32)}
    device.hear(device.task.announce(1, parameters=wrong))
    assert device.agent.begin_update() is None
    assert "lacks table in the manifest's shape" in caplog.text


def test_interactions_outside_the_catalogue_are_left_out(device: Device) -> None:
    device.store.add_interactions([Interaction(ITEMS, 1.0)])
    device.ready(*HISTORY)
    assert device.update().examples == len(HISTORY) - 1


def test_every_occurrence_of_the_held_out_item_is_kept_out_of_training(device: Device) -> None:
    device.ready(5, 6, 7, 5)
    update = device.update()
    assert update.examples == 2
    assert Metric.HR_AT_10 in update.metrics


def test_a_history_of_one_item_only_is_trained_on(device: Device) -> None:
    device.ready(5, 5, 5)
    update = device.update()
    assert update.examples == 3
    assert Metric.HR_AT_10 not in update.metrics


@pytest.mark.parametrize("payload", [b"", b"garbage", make_task("another").announce().encode()])
def test_only_a_valid_announcement_is_adopted(device: Device, payload: bytes) -> None:
    device.agent.receive(topics.announcement("ab" * 16), payload)
    assert device.agent.task is None
    device.ready(*HISTORY)
    assert device.agent.task == device.task.task


def test_the_base_on_disk_is_named_after_its_version_and_task(tmp_path: Path) -> None:
    """Two tasks, or two versions, may have the same parameters byte for byte."""
    one, two = make_task("one"), make_task("two")
    device = Device(tmp_path, one)
    device.ready(*HISTORY)
    device.update()
    received = device.store.counters()["received_bytes"]
    device.hear(one.announce(5))
    device.update()
    assert device.store.get("base")["version"] == 5
    assert device.store.counters()["received_bytes"] == received
    device.config, device.source = (
        config_for(tmp_path, task=two.task),
        MemorySource(tmp_path / "blobs", two),
    )
    device.restart()
    device.agent.connected()
    device.hear(two.announce())
    device.update()
    assert device.store.get("base")["task"] == two.task


def test_a_clock_set_back_does_not_starve_what_was_sent_before(device: Device) -> None:
    device.clock.now = 2_000_000_000.0
    device.ready(*HISTORY)
    old = device.update()
    device.wire.published.clear()
    device.clock.now = 1_700_000_000.0
    for _ in range(120):
        device.clock.now += 60.0
        device.agent.send_due()
        device.answer(device.update().sequence)
    assert old.sequence in [update.sequence for update in device.wire.updates]


def test_training_that_explodes_changes_nothing(
    device: Device, caplog: pytest.LogCaptureFixture
) -> None:
    device.ready(*HISTORY)
    device.update()
    residual, private = device.residual(), device.private()
    wild = TrainingPolicy(**{**TRAINING.to_dict(), "learning_rate": 1000.0, "epochs": 100})
    huge = {k: np.full_like(v, 3e37) for k, v in device.task.parameters().items()}
    device.hear(device.task.announce(1, training=wild, parameters=huge))
    base = device.agent.begin_update(early=True)
    assert base is not None
    assert device.agent.finish_update(base) is None
    assert "not finite after training" in caplog.text
    np.testing.assert_equal(device.private(), private)
    assert squared_norm(add(residual, device.residual(), -1.0)) == 0.0
    assert device.store.counters()["created"] == 1
    assert not device.agent.update_due()


class SmallRuntime:
    """The real runtime, whose programs have a capacity."""

    name = "onnx"

    def __init__(self, rows: int) -> None:
        self._rows = rows

    def open_update(self, manifest: Manifest, files: Mapping[str, ProgramFile]) -> Program:
        return SmallProgram(RUNTIME.open_update(manifest, files), self._rows)

    def open_scorer(self, manifest: Manifest, files: Mapping[str, ProgramFile]) -> Program:
        return SmallProgram(RUNTIME.open_scorer(manifest, files), self._rows)


class SmallProgram:
    def __init__(self, program: Program, rows: int) -> None:
        self._program, self.capacity = program, Capacity(rows, 4)

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        assert len(inputs["table"]) <= self.capacity.rows
        return self._program.run(inputs)


@pytest.mark.parametrize(
    ("make", "bad", "message"),
    [
        (make_task, "parameters", "is not finite after training"),
        (make_context_task, "parameters", "is not finite after training"),
        (make_context_task, "frozen", "is not finite after training"),
        (make_context_task, "capacity", "does not fit into the program's 2 rows"),
        (make_sequence_task, "frozen", "is not finite after training"),
        (make_sequence_task, "capacity", "does not fit into the program's 2 rows"),
    ],
)
def test_bad_input_is_named_and_changes_nothing_on_the_device(
    tmp_path: Path,
    make: Callable[[], TinyTask],
    bad: str,
    message: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    task = make()
    device = Device(tmp_path, task, config=config_for(tmp_path, holdout=False))
    device.ready(*HISTORY)
    device.update()
    residual, private = device.residual(), device.private()
    spoilt = {name: np.full_like(value, np.nan) for name, value in task.parameters().items()}
    announcement = task.announce(1, parameters=spoilt if bad == "parameters" else None)
    if bad == "capacity":
        device.runtime = SmallRuntime(2)
    device.restart()
    device.agent.connected()
    device.hear(announcement)
    base = device.agent.begin_update(early=True)
    assert base is not None
    if bad == "frozen":
        frozen = [spec.name for spec in task.manifest.frozen_parameters]
        parameters = {**base.parameters, **{name: spoilt[name] for name in frozen}}
        base = dataclasses.replace(base, parameters=parameters)
    assert device.agent.finish_update(base) is None
    assert "the local update failed and changed nothing" in caplog.text
    assert message in caplog.text
    np.testing.assert_equal(device.private(), private)
    assert squared_norm(add(residual, device.residual(), -1.0)) == 0.0
    assert device.store.counters()["created"] == 1


def test_a_learning_rate_of_infinity_is_refused_by_name(
    device: Device, caplog: pytest.LogCaptureFixture
) -> None:
    device.ready(*HISTORY)
    endless = TrainingPolicy.from_dict(TRAINING.to_dict())
    object.__setattr__(endless, "learning_rate", float("inf"))
    device.hear(device.task.announce(1, training=endless))
    assert "training.learning_rate is inf; expected a number from 0 to 1000" in caplog.text
    assert device.agent.announcement == device.task.announce(0)


def test_a_history_larger_than_the_capacity_is_trained_on_in_part(tmp_path: Path) -> None:
    for make in (make_task, make_context_task, make_sequence_task):
        device = Device(tmp_path / make.__name__, make(), runtime=SmallRuntime(20))
        device.ready(*range(40))
        update = device.update()
        assert 0 < update.examples < 39
        assert set(update.metrics) == set(Metric)


def test_context_and_history_are_those_of_the_store(tmp_path: Path) -> None:
    """What is out of range counts as unknown, so the same update comes of it."""
    payloads = []
    for daytime in (0, 99, 1):
        device = Device(tmp_path / f"{daytime}", make_context_task())
        for at, item in enumerate(HISTORY):
            context = {"daytime": 2 if at else daytime, "weekday": 5}
            device.store.add_interactions([Interaction(item, 1.0 + at, context)])
        device.ready()
        payloads.append(device.update().payload)
    assert payloads[0] == payloads[1] != payloads[2]


def test_a_sequence_waits_for_its_second_action(tmp_path: Path) -> None:
    device = Device(tmp_path, make_sequence_task())
    device.ready(5)
    base = device.agent.begin_update()
    assert base is not None
    assert device.agent.finish_update(base) is None
    device.log(6, 5)
    assert device.update().examples == 1


def test_an_update_that_is_written_counts_though_the_disk_is_full_right_after(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    device.ready(*HISTORY)
    original, recorded = device.store.record_update, list[int]()

    def record_and_fill_up(entry: Any, **others: Any) -> None:
        original(entry, **others)
        recorded.append(entry.sequence)
        monkeypatch.setattr(device.store, "hasten", full)

    def full(*_args: Any, **_keywords: Any) -> None:
        raise StoreError("the database failed: database or disk is full")

    monkeypatch.setattr(device.store, "record_update", record_and_fill_up)
    base = device.agent.begin_update()
    assert base is not None
    sent = device.agent.finish_update(base)
    assert sent is not None
    assert [sent.sequence] == recorded == [update.sequence for update in device.wire.updates]
    monkeypatch.undo()
    due = device.agent.next_due(training=False)
    assert due is not None
    device.clock.now = due
    device.agent.send_due()
    device.answer(sent.sequence)
    assert device.agent.outbox.waiting.updates == 0


def test_a_full_outbox_stops_training_until_a_receipt_comes(tmp_path: Path, task: TinyTask) -> None:
    limits = OutboxLimits(max_updates=2, max_bytes=1_000_000)
    device = Device(tmp_path, task, config=config_for(tmp_path, outbox=limits))
    device.ready(*HISTORY)
    first, _second = device.update(), device.update()
    device.clock.now += 60.0
    assert not device.agent.update_due()
    device.answer(first.sequence)
    assert device.agent.update_due()


def test_updates_made_offline_in_the_meantime_are_sent_on_reconnection(device: Device) -> None:
    device.ready(*HISTORY)
    base = device.agent.begin_update()
    assert base is not None
    device.agent.disconnected()
    sent = device.agent.finish_update(base)
    assert sent is not None
    assert device.wire.published == []
    assert device.agent.next_due() is None
    device.agent.connected()
    device.clock.now += 5.0
    device.agent.send_due()
    assert [update.sequence for update in device.wire.updates] == [sent.sequence]


def test_without_receipt_the_same_bytes_are_sent_again_ever_more_slowly(device: Device) -> None:
    device.ready(*HISTORY)
    device.update()
    waits = []
    for _ in range(12):
        start = device.clock.now
        due = device.agent.next_due(training=False)
        assert due is not None
        device.agent.send_due()
        device.clock.now = due
        device.agent.send_due()
        waits.append(due - start)
    assert len({payload for _, payload, _ in device.wire.published}) == 1
    assert len(device.wire.published) == 13
    assert min(waits) >= 30.0
    assert max(waits) <= 3630.0
    assert np.mean(waits[6:]) > 4 * np.mean(waits[:3])


def test_reconnection_sends_what_waits_again_soon(device: Device) -> None:
    device.ready(*HISTORY)
    device.update()
    device.agent.disconnected()
    device.agent.connected()
    due = device.agent.next_due(training=False)
    assert due is not None
    assert due - device.clock.now <= 5.0


def test_an_update_that_was_tried_often_is_not_hurried_by_reconnections(device: Device) -> None:
    device.ready(*HISTORY)
    device.update()
    for _ in range(5):
        device.clock.now = device.agent.next_due(training=False) or 0.0
        device.agent.send_due()
    slow = device.agent.next_due(training=False)
    device.agent.disconnected()
    device.agent.connected()
    assert device.agent.next_due(training=False) == slow


def test_a_clock_set_back_does_not_stop_the_device(device: Device) -> None:
    device.ready(*HISTORY)
    device.update()
    device.clock.now -= 10 * 365 * 86_400.0
    due = device.agent.next_due(training=False)
    assert due is not None
    assert due - device.clock.now <= 3630.0
    due = device.agent.next_due()
    assert due is not None
    assert due - device.clock.now <= 900.0
    device.clock.now += 1000.0
    sequence = device.wire.updates[-1].sequence
    assert device.update().sequence == sequence + 1


def test_a_wiped_device_does_not_reuse_its_numbers(tmp_path: Path, task: TinyTask) -> None:
    first = Device(tmp_path / "before", task)
    first.ready(*HISTORY)
    numbers = {first.update().sequence for _ in range(3)}
    second = Device(tmp_path / "after", task)
    second.clock.now = first.clock.now + 60.0
    second.ready(*HISTORY)
    assert second.update().sequence not in numbers


def test_another_devices_database_is_refused(tmp_path: Path, task: TinyTask) -> None:
    Device(tmp_path, task).store.close()
    with pytest.raises(StoreError, match="belongs to the device 'dev-1', not to 'dev-2'"):
        Device(tmp_path, task, config=config_for(tmp_path, device="dev-2"))


def test_counters_add_up(device: Device) -> None:
    device.ready(*HISTORY)
    updates = [device.update() for _ in range(4)]
    device.answer(updates[0].sequence)
    device.answer(updates[1].sequence, Outcome.DUPLICATE)
    device.answer(updates[2].sequence, Outcome.REJECTED, Refusal.TOO_STALE)
    counters = device.store.counters()
    sizes = sum(len(payload) for _, payload, _ in device.wire.published)
    received = len(device.task.raw) + sum(map(len, device.task.blobs.values()))
    assert counters == {
        "created": 4,
        "sends": 4,
        "sent_bytes": sizes,
        "accepted": 1,
        "duplicate": 1,
        "rejected": 1,
        "received_bytes": received,
    }
    assert device.agent.outbox.waiting.updates == 1


def test_a_rate_refusal_makes_the_device_wait(device: Device) -> None:
    device.ready(*HISTORY)
    update = device.update()
    device.clock.now += 20.0
    device.answer(update.sequence, Outcome.REJECTED, Refusal.RATE)
    assert not device.agent.update_due()


def test_private_parameters_never_leave(device: Device) -> None:
    """A person's vector is in no message: neither as bytes nor as a tensor of the delta."""
    device.ready(*HISTORY)
    update: Update = device.update()
    private = device.private()
    assert set(private) == {"user"}
    assert set(device.decoded(update)) == {"table", "bias"}
    assert all(private["user"].tobytes() not in payload for _, payload, _ in device.wire.published)
