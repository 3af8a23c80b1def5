"""The dashboard's document."""

import pytest

from aggregator.summary import summarise
from tests.aggregator.workshop import Workshop, make_update
from wire import topics
from wire.bundle import Bundle
from wire.messages import Metric, Status, StatusState


def test_an_untouched_task(workshop: Workshop, bundle: Bundle) -> None:
    record = workshop.engine.tasks[bundle.task].record
    summary = summarise(workshop.reports, record, now=workshop.clock.now)
    assert summary["version"] == 0
    assert summary["updates"] == {
        "accepted": 0,
        "duplicate": 0,
        "rejected": 0,
        "pending": 0,
        "per_second": 0.0,
    }
    assert summary["bytes"] == {"received": 0, "dense_equivalent": 0, "saved_ratio": 0.0}
    assert summary["quality"] == summary["staleness"] == []
    assert len(summary["throughput"]) == 120


def test_the_numbers_add_up(workshop: Workshop, bundle: Bundle) -> None:
    status = Status(state=StatusState.ONLINE, agent="0.1.0", runtime="onnx").encode()
    good = [make_update(bundle, n, metrics={Metric.HR_AT_10: n % 2}) for n in range(1, 5)]
    workshop.engine.ingest([workshop.outbox.inbound("a", status, topic=topics.status("a"))])
    workshop.send("a", *good, good[0])
    workshop.send("b", make_update(bundle, 1, base=9), make_update(bundle, 2, base=9))
    workshop.engine.ingest([workshop.outbox.inbound("c", b"rubbish")])
    workshop.clock.now += 5.0
    workshop.send("b", make_update(bundle, 3, base=1, metrics={Metric.HR_AT_10: 1.0}))
    workshop.clock.now += 1.0
    record = workshop.engine.tasks[bundle.task].record
    summary = summarise(workshop.reports, record, now=workshop.clock.now)
    assert (summary["task"], summary["name"], summary["version"]) == (bundle.task, "tiny", 1)
    assert summary["devices"] == {"known": 2, "online": 1, "active": 2}
    assert summary["updates"] == {
        "accepted": 5,
        "duplicate": 1,
        "rejected": 3,
        "pending": 2,
        "per_second": 0.5,
    }
    size = len(good[0].encode())
    received = summary["bytes"]["received"]
    assert received == pytest.approx(5 * size, abs=10)
    assert summary["bytes"]["dense_equivalent"] == 5 * 4 * (12 * 4 + 4)
    assert summary["bytes"]["saved_ratio"] == pytest.approx(1 - received / (5 * 208))
    assert summary["refusals"] == {"malformed": 1, "from-the-future": 2}
    assert summary["staleness"] == [(0, 3)]
    assert [(q["version"], q["hr_at_10"], q["reports"]) for q in summary["quality"]] == [
        (0, 0.5, 4),
        (1, 1.0, 1),
    ]
    assert sum(count for _, count in summary["throughput"]) == 5
    assert summary["throughput"][-1] == [int(workshop.clock.now) - 1, 1]


def test_devices_fall_silent(workshop: Workshop, bundle: Bundle) -> None:
    workshop.send("a", make_update(bundle, 1))
    workshop.clock.now += 61.0
    record = workshop.engine.tasks[bundle.task].record
    summary = summarise(workshop.reports, record, now=workshop.clock.now)
    assert summary["devices"] == {"known": 1, "online": 0, "active": 0}
