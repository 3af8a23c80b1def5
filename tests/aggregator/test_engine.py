"""What the engine does with messages, time and commands."""

import hashlib
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from aggregator.admission import AdmissionPolicy
from aggregator.blobs import open_blobs
from aggregator.engine import TaskError
from aggregator.ledger import LedgerUnavailableError, MergeRecord
from aggregator.merging import Contribution, Rule, RuleError, merge
from aggregator.orders import Steering
from aggregator.retention import Retention
from aggregator.snapshots import encode_snapshot
from tests.aggregator.bucket import BucketServer
from tests.aggregator.workshop import ManualClock, Workshop, make_bundle, make_update, open_workshop
from wire import topics
from wire.bundle import Bundle
from wire.codec import decode_delta
from wire.errors import BundleError, ManifestError, PolicyError
from wire.messages import Metric, Outcome, Refusal, Status, StatusState


def outcomes(workshop: Workshop, device: str) -> list[tuple[int, Outcome, Refusal | None]]:
    return [(r.sequence, r.outcome, r.reason) for r in workshop.outbox.receipts(device)]


def tally(workshop: Workshop, kind: str, task: str) -> dict[int, int]:
    return {t.key: t.value for t in workshop.reports.tallies(task) if t.kind == kind}


def test_a_full_buffer_makes_the_version_that_merge_says(
    workshop: Workshop, bundle: Bundle
) -> None:
    task = workshop.engine.tasks[bundle.task]
    start = deepcopy(task.state)
    sent = [make_update(bundle, n) for n in (1, 2, 3)]
    workshop.send("a", *sent)
    specs = bundle.manifest.federated
    batch = [
        Contribution(n, 0, u.examples, decode_delta(u.payload, specs)) for n, u in enumerate(sent)
    ]
    expected = merge(start, batch, Rule(buffer_size=3))
    assert task.version == 1
    for name, array in expected.parameters.items():
        assert np.array_equal(task.state.parameters[name], array)
    assert outcomes(workshop, "a") == [(n, Outcome.ACCEPTED, None) for n in (1, 2, 3)]
    announced = workshop.outbox.announcements(bundle.task)[-1]
    assert task.published is not None
    assert (announced.version, announced.sha256) == (1, task.published.sha256)
    assert workshop.blobs.path(announced.sha256).stat().st_size == announced.size_bytes


def test_one_batch_may_fill_several_buffers(workshop: Workshop, bundle: Bundle) -> None:
    workshop.send("a", *(make_update(bundle, n) for n in range(1, 9)))
    assert workshop.engine.tasks[bundle.task].version == 2
    assert workshop.engine.tasks[bundle.task].pending == 2
    assert tally(workshop, "staleness", bundle.task) == {0: 3, 1: 3}


def test_nothing_is_acknowledged_or_answered_before_it_is_durable(
    workshop: Workshop, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_intake: object) -> list[int]:
        assert not workshop.outbox.acknowledged
        raise LedgerUnavailableError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(workshop.ledger, "take_in", refuse)
        with pytest.raises(LedgerUnavailableError):
            workshop.send("a", make_update(bundle, 1))
    assert not workshop.outbox.acknowledged
    assert not outcomes(workshop, "a")
    workshop.send("a", make_update(bundle, 1))
    assert len(workshop.outbox.acknowledged) == 1
    assert outcomes(workshop, "a") == [(1, Outcome.ACCEPTED, None)]


def test_a_second_delivery_is_a_duplicate_and_changes_nothing(
    workshop: Workshop, bundle: Bundle
) -> None:
    update = make_update(bundle, 1)
    workshop.send("a", update, update)
    workshop.send("a", update)
    assert [o for _, o, _ in outcomes(workshop, "a")] == [
        Outcome.ACCEPTED,
        Outcome.DUPLICATE,
        Outcome.DUPLICATE,
    ]
    assert workshop.reports.pending(bundle.task) == 1
    assert len(workshop.outbox.acknowledged) == 3
    assert tally(workshop, "duplicate", bundle.task) == {0: 2}


def test_the_same_sequence_of_another_device_is_another_update(
    workshop: Workshop, bundle: Bundle
) -> None:
    workshop.send("a", make_update(bundle, 1))
    workshop.send("b", make_update(bundle, 1))
    assert outcomes(workshop, "b") == [(1, Outcome.ACCEPTED, None)]


def test_updates_out_of_order_are_each_taken_once(workshop: Workshop, bundle: Bundle) -> None:
    for n in (5, 1, 3, 5, 2, 1, 4):
        workshop.send("a", make_update(bundle, n))
    assert [o for _, o, _ in outcomes(workshop, "a")].count(Outcome.ACCEPTED) == 5
    assert workshop.engine.tasks[bundle.task].version == 1
    assert workshop.reports.pending(bundle.task) == 2


def test_an_accepted_update_stays_a_duplicate_when_it_would_be_too_stale_by_now(
    tmp_path: Path, bundle: Bundle
) -> None:
    strict = AdmissionPolicy(max_staleness=0)
    with open_workshop(tmp_path / "data", rule=Rule(buffer_size=1), admission=strict) as workshop:
        workshop.engine.start()
        workshop.engine.register(bundle)
        first = make_update(bundle, 1)
        workshop.send("a", first)
        workshop.send("a", make_update(bundle, 2), first)
        assert outcomes(workshop, "a") == [
            (1, Outcome.ACCEPTED, None),
            (2, Outcome.REJECTED, Refusal.TOO_STALE),
            (1, Outcome.DUPLICATE, None),
        ]


def test_a_refused_update_stays_refused_when_it_would_be_good_by_now(
    workshop: Workshop, bundle: Bundle
) -> None:
    early = make_update(bundle, 1, base=1)
    workshop.send("a", early, early)
    workshop.send("a", *(make_update(bundle, n) for n in (2, 3, 4)))
    workshop.send("a", early)
    refused = (1, Outcome.REJECTED, Refusal.FROM_THE_FUTURE)
    assert outcomes(workshop, "a")[:2] == [refused, refused]
    assert outcomes(workshop, "a")[-1] == refused
    assert tally(workshop, "refusal", bundle.task) == {Refusal.FROM_THE_FUTURE: 1}
    assert tally(workshop, "duplicate", bundle.task) == {0: 2}


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", Refusal.MALFORMED),
        (b"not cbor \xff", Refusal.MALFORMED),
        (b"\xa1\x00\x01", Refusal.MALFORMED),
        (b"\x00" * 900_001, Refusal.OVERSIZE),
    ],
)
def test_what_names_no_update_is_counted_and_acknowledged(
    workshop: Workshop, payload: bytes, reason: Refusal
) -> None:
    workshop.engine.ingest([workshop.outbox.inbound("a", payload)])
    assert tally(workshop, "refusal", "") == {reason: 1}
    assert len(workshop.outbox.acknowledged) == 1
    assert workshop.reports.events(limit=10)[-1].kind == "unreadable"


def test_an_update_for_another_task_is_refused_by_name(workshop: Workshop, tmp_path: Path) -> None:
    stranger = make_bundle(tmp_path / "other", name="other")
    workshop.send("a", make_update(stranger, 7))
    assert outcomes(workshop, "a") == [(7, Outcome.REJECTED, Refusal.UNKNOWN_TASK)]
    assert tally(workshop, "refusal", "") == {Refusal.UNKNOWN_TASK: 1}
    assert "announcement" in workshop.reports.events(limit=10)[-1].detail


def test_a_bad_update_in_a_batch_does_not_touch_the_good_ones(
    workshop: Workshop, bundle: Bundle
) -> None:
    outbox = workshop.outbox
    workshop.engine.ingest(
        [
            outbox.inbound("a", make_update(bundle, 1).encode()),
            outbox.inbound("b", b"rubbish"),
            outbox.inbound("c", make_update(bundle, 1, base=9).encode()),
            outbox.inbound("d", make_update(bundle, 1).encode()),
        ]
    )
    assert outcomes(workshop, "a") == outcomes(workshop, "d") == [(1, Outcome.ACCEPTED, None)]
    assert outcomes(workshop, "c") == [(1, Outcome.REJECTED, Refusal.FROM_THE_FUTURE)]
    assert len(outbox.acknowledged) == 4


def test_statuses_are_kept_and_bad_ones_counted(workshop: Workshop, bundle: Bundle) -> None:
    online = Status(state=StatusState.ONLINE, agent="0.1.0", runtime="onnx").encode()
    outbox = workshop.outbox
    workshop.engine.ingest(
        [
            outbox.inbound("a", online, topic=topics.status("a")),
            outbox.inbound("b", b"", topic=topics.status("b")),
            outbox.inbound("c", b"?", topic=topics.status("c")),
            outbox.inbound("Bad!", online, topic=topics.status("Bad!")),
        ]
    )
    assert [d.device for d in workshop.reports.devices(bundle.task)] == ["a"]
    assert tally(workshop, "refusal", "") == {Refusal.MALFORMED: 2}


def test_a_buffer_is_merged_when_it_waited_long_enough(workshop: Workshop, bundle: Bundle) -> None:
    task = workshop.engine.tasks[bundle.task]
    workshop.send("a", make_update(bundle, 1))
    assert workshop.engine.next_due() == workshop.clock.now + task.orders.rule.max_wait_s
    workshop.clock.now += task.orders.rule.max_wait_s - 1
    workshop.engine.tick()
    assert task.version == 0
    workshop.clock.now += 1
    workshop.engine.tick()
    assert task.version == 1
    assert task.pending == 0


def test_an_empty_buffer_waits_for_ever(workshop: Workshop, bundle: Bundle) -> None:
    workshop.clock.now += 1e6
    workshop.engine.tick()
    assert workshop.engine.tasks[bundle.task].version == 0


def test_announcements_of_progress_keep_their_distance_and_the_last_one_comes(
    tmp_path: Path, bundle: Bundle
) -> None:
    rule = Rule(buffer_size=1)
    with open_workshop(tmp_path / "data", rule=rule, announce_interval_s=5.0) as workshop:
        workshop.engine.start()
        workshop.engine.register(bundle)
        workshop.send("a", *(make_update(bundle, n) for n in (1, 2, 3)))
        assert [a.version for a in workshop.outbox.announcements(bundle.task)] == [0]
        assert workshop.engine.next_due() == workshop.clock.now + 5.0
        workshop.clock.now += 5.0
        workshop.engine.tick()
        assert [a.version for a in workshop.outbox.announcements(bundle.task)] == [0, 3]


def test_a_paused_task_accepts_and_merges_later(workshop: Workshop, bundle: Bundle) -> None:
    workshop.engine.steer(bundle.task, Steering(paused=True))
    assert workshop.outbox.announcements(bundle.task)[-1].paused
    workshop.send("a", *(make_update(bundle, n) for n in (1, 2, 3)))
    workshop.clock.now += 100.0
    workshop.engine.tick()
    assert workshop.engine.tasks[bundle.task].version == 0
    assert len(outcomes(workshop, "a")) == 3
    workshop.engine.steer(bundle.task, Steering(paused=False))
    assert workshop.engine.tasks[bundle.task].version == 1


def test_steering_is_announced_at_once_and_each_version_says_its_rule(
    workshop: Workshop, bundle: Bundle
) -> None:
    steering = Steering(training={"learning_rate": 0.5}, codec={"bits": 8}, rule={"buffer_size": 1})
    workshop.send("a", *(make_update(bundle, n) for n in (1, 2, 3)))
    workshop.engine.steer(bundle.task, steering)
    announced = workshop.outbox.announcements(bundle.task)[-1]
    assert announced.training == replace(bundle.manifest.training, learning_rate=0.5)
    assert announced.codec.bits == 8
    workshop.send("a", make_update(bundle, 4))
    rules = [v.version.rule["buffer_size"] for v in workshop.reports.versions(bundle.task)]
    assert rules == [3, 3, 1]
    assert workshop.reports.events()[-1].kind == "steered"


def test_a_rule_of_another_kind_takes_over_with_the_next_merge(
    workshop: Workshop, bundle: Bundle
) -> None:
    workshop.send("a", *(make_update(bundle, n) for n in (1, 2, 3)))
    workshop.engine.steer(bundle.task, Steering(rule={"kind": "fedasync", "staleness": "hinge"}))
    workshop.send("a", make_update(bundle, 4))
    workshop.engine.steer(bundle.task, Steering(rule={"kind": "fedbuff", "optimizer": "adam"}))
    workshop.send("a", *(make_update(bundle, n) for n in range(5, 25)))
    rules = [v.version.rule for v in workshop.reports.versions(bundle.task)]
    assert [rule["kind"] for rule in rules] == ["fedbuff", "fedbuff", "fedasync", "fedbuff"]
    assert [rule["optimizer"] for rule in rules] == ["sgd", "sgd", "sgd", "adam"]
    assert [rule["buffer_size"] for rule in rules] == [3, 3, 1, 20]


@pytest.mark.parametrize(
    ("steering", "error"),
    [
        (Steering(training={"epochs": 0}), PolicyError),
        (Steering(codec={"mode": "zip"}), PolicyError),
        (Steering(rule={"bufer": 2}), RuleError),
        (Steering(rule={"momentum": 0.5}), RuleError),
    ],
)
def test_orders_that_are_not_valid_change_nothing(
    workshop: Workshop, bundle: Bundle, steering: Steering, error: type[Exception]
) -> None:
    before = workshop.reports.task(bundle.task)
    with pytest.raises(error):
        workshop.engine.steer(bundle.task, steering)
    assert workshop.reports.task(bundle.task) == before
    with pytest.raises(KeyError):
        workshop.engine.steer("0" * 32, Steering(paused=True))


def test_a_task_is_made_once(workshop: Workshop, bundle: Bundle) -> None:
    workshop.send("a", *(make_update(bundle, n) for n in (1, 2, 3)))
    assert workshop.engine.register(bundle) == bundle.task
    assert workshop.engine.tasks[bundle.task].version == 1


def test_a_task_without_its_files_is_refused(workshop: Workshop, tmp_path: Path) -> None:
    other = make_bundle(tmp_path / "other", name="other")
    with pytest.raises(TaskError, match=r"programs/update\.onnx"):
        workshop.engine.create_task(other.raw_manifest)
    with pytest.raises(ManifestError):
        workshop.engine.create_task(b"{}")


def test_a_task_whose_parameters_do_not_fit_is_refused(workshop: Workshop, bundle: Bundle) -> None:
    wider = bundle.raw_manifest.replace(b"   4\n", b"   5\n")
    assert wider != bundle.raw_manifest
    with pytest.raises(BundleError, match="shape"):
        workshop.engine.create_task(wider)


def test_tasks_do_not_mix(workshop: Workshop, bundle: Bundle, tmp_path: Path) -> None:
    other = make_bundle(tmp_path / "other", name="other")
    workshop.engine.register(other)
    workshop.send("a", *(make_update(bundle, n) for n in (1, 2)), make_update(other, 1))
    assert workshop.engine.tasks[bundle.task].version == 0
    workshop.send("a", *(make_update(other, n) for n in (2, 3)))
    assert workshop.engine.tasks[bundle.task].version == 0
    assert workshop.engine.tasks[other.task].version == 1


OTHERS = ("the update program", "the scorer", "the private parameters", "the publication")


def files(workshop: Workshop) -> int:
    return len(list(workshop.blobs.names()))


def test_old_snapshots_go_and_the_bundle_stays(tmp_path: Path, bundle: Bundle) -> None:
    retention = Retention(snapshot_every=1, keep_snapshots=2, keep_every=4, keep_publications=1)
    rule = Rule(buffer_size=1)
    with open_workshop(tmp_path / "data", rule=rule, retention=retention) as workshop:
        workshop.engine.start()
        workshop.engine.register(bundle)
        workshop.send("a", *(make_update(bundle, n) for n in range(1, 11)))
        kept = workshop.ledger.snapshots(bundle.task)
        assert [version for version, _ in kept] == [0, 4, 8, 9, 10]
        assert files(workshop) == len({sha256 for _, sha256 in kept}) + len(OTHERS)
        assert all(workshop.blobs.has(entry.sha256) for entry in bundle.manifest.files)
    tighter = Retention(snapshot_every=1, keep_snapshots=1, keep_every=0, keep_publications=1)
    with open_workshop(tmp_path / "data", rule=rule, retention=tighter) as workshop:
        workshop.engine.start()
        kept = workshop.ledger.snapshots(bundle.task)
        assert [version for version, _ in kept] == [0, 10]
        assert all(workshop.blobs.has(sha256) for _, sha256 in kept)
        assert files(workshop) == len(kept) + len(OTHERS)


def test_a_merge_that_cannot_be_written_is_tried_again(
    workshop: Workshop, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise LedgerUnavailableError("database or disk is full")

    task = workshop.engine.tasks[bundle.task]
    with monkeypatch.context() as patch:
        patch.setattr(workshop.ledger, "add_merges", refuse)
        workshop.send("a", *(make_update(bundle, n) for n in (1, 2, 3)))
        assert (task.version, task.pending) == (0, 3)
    assert len(outcomes(workshop, "a")) == 3
    assert workshop.engine.next_due() > workshop.clock.now
    workshop.clock.now += 1.0
    workshop.engine.tick()
    assert (task.version, task.pending) == (1, 0)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_many_merges_together_are_what_they_are_one_by_one(
    tmp_path: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch, optimizer: str
) -> None:
    """Also when the database refuses them first: memory is as it was before them, to the bit."""
    rule = Rule.from_dict({"buffer_size": 2, "optimizer": optimizer})
    sent = [make_update(bundle, number) for number in range(1, 12)]
    refusals = 0

    def refuse(merges: Sequence[MergeRecord]) -> None:
        nonlocal refusals
        refusals += 1
        assert len(merges) > 1
        raise LedgerUnavailableError("database or disk is full")

    with open_workshop(tmp_path / "one-by-one", rule=rule) as workshop:
        workshop.engine.start()
        workshop.engine.register(bundle)
        for update in sent:
            workshop.send("a", update)
        alone = workshop.engine.tasks[bundle.task]
        digests = [record.digest for record in workshop.ledger.between(bundle.task, 1, 5)]
    with open_workshop(tmp_path / "together", rule=rule) as workshop:
        workshop.engine.start()
        workshop.engine.register(bundle)
        workshop.send("a", *sent[:3])
        task = workshop.engine.tasks[bundle.task]
        before = encode_snapshot(task.state)
        with monkeypatch.context() as patch:
            patch.setattr(workshop.ledger, "add_merges", refuse)
            workshop.send("a", *sent[3:])
        assert (refusals, task.version, task.pending) == (1, 1, 9)
        assert encode_snapshot(task.state) == before
        workshop.clock.now += 1.0
        workshop.engine.tick()
        assert (task.version, task.pending) == (5, 1)
        found = [record.digest for record in workshop.ledger.between(bundle.task, 1, 5)]
        assert found == digests
        assert encode_snapshot(task.state) == encode_snapshot(alone.state)


def test_a_full_disk_delays_the_announcement_and_nothing_else(
    tmp_path: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> str:
        raise OSError(28, "No space left on device")

    retention = Retention(snapshot_every=1)
    with open_workshop(tmp_path / "data", retention=retention) as workshop:
        workshop.engine.start()
        workshop.engine.register(bundle)
        with monkeypatch.context() as patch:
            for name in ("upload", "put_file"):
                patch.setattr(workshop.blobs, name, full)
            workshop.send("a", *(make_update(bundle, n) for n in (1, 2, 3)))
            assert workshop.engine.tasks[bundle.task].version == 1
            assert workshop.outbox.announcements(bundle.task)[-1].version == 0
            assert [v for v, _ in workshop.ledger.snapshots(bundle.task)] == [0]
            assert "storage-full" in str(workshop.engine.problem)
        assert workshop.engine.next_due() == workshop.clock.now + 1.0
        workshop.clock.now += 1.0
        workshop.engine.tick()
        assert workshop.engine.problem is None
        assert workshop.outbox.announcements(bundle.task)[-1].version == 1
        assert [v for v, _ in workshop.ledger.snapshots(bundle.task)] == [0, 1]


def test_a_bucket_that_is_away_delays_the_announcement_and_loses_nothing(
    tmp_path: Path, bundle: Bundle, bucket_url: str, bucket_server: BucketServer
) -> None:
    blobs = open_blobs(bucket_url, cache=tmp_path / "cache", cache_bytes=0)
    with open_workshop(tmp_path / "data", blobs=blobs) as workshop:
        workshop.engine.start()
        workshop.engine.register(bundle)
        task = workshop.engine.tasks[bundle.task]
        bucket_server.stop()
        try:
            workshop.send("a", *(make_update(bundle, n) for n in (1, 2, 3)))
        finally:
            bucket_server.start()
        assert (task.version, task.pending) == (1, 0)
        assert workshop.outbox.announcements(bundle.task)[-1].version == 0
        assert len(outcomes(workshop, "a")) == 3
        workshop.clock.now += 1.0
        workshop.engine.tick()
        assert workshop.outbox.announcements(bundle.task)[-1].version == 1
        workshop.engine.save_all()
    fresh = open_blobs(bucket_url, cache=tmp_path / "fresh", cache_bytes=0)
    with open_workshop(tmp_path / "data", blobs=fresh) as workshop:
        workshop.engine.start()
        again = workshop.engine.tasks[bundle.task]
        assert np.array_equal(again.state.parameters["item"], task.state.parameters["item"])


def test_reported_metrics_are_kept_by_base_version(workshop: Workshop, bundle: Bundle) -> None:
    workshop.send(
        "a",
        make_update(bundle, 1, metrics={Metric.HR_AT_10: 1.0, Metric.EVAL_LOSS: 0.5}),
        make_update(bundle, 2, metrics={Metric.HR_AT_10: 0.0}),
    )
    quality = workshop.reports.quality(bundle.task, bins=10)
    assert quality[0]["hr_at_10"] == 0.5
    assert quality[0]["eval_loss"] == 0.5


def test_restart_goes_on_where_it_was(tmp_path: Path, bundle: Bundle) -> None:
    clock = ManualClock()
    with open_workshop(tmp_path / "data", clock=clock) as workshop:
        workshop.engine.start()
        workshop.engine.register(bundle)
        workshop.engine.steer(bundle.task, Steering(training={"epochs": 7}))
        workshop.send("a", *(make_update(bundle, n) for n in range(1, 6)))
        before = workshop.engine.tasks[bundle.task]
    with open_workshop(tmp_path / "data", clock=clock) as workshop:
        workshop.engine.start()
        after = workshop.engine.tasks[bundle.task]
        assert (after.version, after.pending, after.orders) == (1, 2, before.orders)
        for name, array in before.state.parameters.items():
            assert np.array_equal(after.state.parameters[name], array)
        announced = workshop.outbox.announcements(bundle.task)
        assert [a.version for a in announced] == [1]
        workshop.send("a", make_update(bundle, 3), make_update(bundle, 6))
        assert [o for _, o, _ in outcomes(workshop, "a")] == [Outcome.DUPLICATE, Outcome.ACCEPTED]
        assert after.version == 2


def test_a_damaged_publication_is_mended_before_it_is_announced(
    tmp_path: Path, bundle: Bundle
) -> None:
    with open_workshop(tmp_path / "data") as workshop:
        workshop.engine.start()
        workshop.engine.register(bundle)
        workshop.send("a", *(make_update(bundle, n) for n in (1, 2, 3)))
        task = workshop.engine.tasks[bundle.task]
        assert task.published is not None
        published, programs = task.published.sha256, bundle.manifest.files[0].sha256
        for sha256 in (published, programs):
            flip_last_byte(workshop.blobs.path(sha256))
    with open_workshop(tmp_path / "data") as workshop:
        workshop.engine.start()
        workshop.engine.register(bundle)
        announced = workshop.outbox.announcements(bundle.task)[-1]
        assert (announced.version, announced.sha256) == (1, published)
        for sha256 in (published, programs):
            content = workshop.blobs.path(sha256).read_bytes()
            assert hashlib.sha256(content).hexdigest() == sha256


def flip_last_byte(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 0xFF]))


def test_an_update_refused_before_its_task_was_made_is_not_accepted_later(
    workshop: Workshop, tmp_path: Path
) -> None:
    late = make_bundle(tmp_path / "late", name="late")
    taken_back = make_update(late, 2)
    workshop.send("a", taken_back)
    workshop.send("a", taken_back)
    workshop.engine.register(late)
    workshop.send("a", make_update(late, 1), taken_back, make_update(late, 3))
    refused = (2, Outcome.REJECTED, Refusal.UNKNOWN_TASK)
    assert outcomes(workshop, "a") == [
        refused,
        refused,
        (1, Outcome.ACCEPTED, None),
        refused,
        (3, Outcome.ACCEPTED, None),
    ]
    assert workshop.engine.tasks[late.task].pending == 2
