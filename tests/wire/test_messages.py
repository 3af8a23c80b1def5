"""Messages: what goes in comes out, golden bytes, and what is refused."""

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire import topics
from wire.errors import MessageError
from wire.messages import (
    Announcement,
    Metric,
    Outcome,
    Receipt,
    Refusal,
    Status,
    StatusState,
    Update,
)
from wire.policy import CodecMode, CodecPolicy, TrainingPolicy

TASK = "00112233445566778899aabbccddeeff"
COUNTERS = st.integers(1, 2**53 - 1)


@given(COUNTERS, COUNTERS, COUNTERS, st.binary(max_size=2000))
def test_an_update_comes_back(sequence: int, base: int, examples: int, payload: bytes) -> None:
    metrics = {Metric.HR_AT_10: 1.0, Metric.NDCG_AT_10: 0.5}
    update = Update(
        task=TASK,
        sequence=sequence,
        base_version=base,
        examples=examples,
        payload=payload,
        metrics=metrics,
    )
    assert Update.decode(update.encode()) == update


def test_the_envelope_of_an_update_is_small() -> None:
    metrics = dict.fromkeys(Metric, 0.25)
    update = Update(
        task=TASK, sequence=40, base_version=1800, examples=106, payload=bytes(600), metrics=metrics
    )
    assert len(update.encode()) - 600 <= 56


def test_golden_update() -> None:
    update = Update(task=TASK, sequence=1, base_version=2, examples=3, payload=b"\x00", metrics={})
    assert (
        update.encode().hex() == "a70001015000112233445566778899aabbccddeeff02010302040305a0064100"
    )


@pytest.mark.parametrize("outcome", [Outcome.ACCEPTED, Outcome.DUPLICATE])
def test_a_receipt_comes_back(outcome: Outcome) -> None:
    receipt = Receipt(task=TASK, sequence=9, outcome=outcome, version=4)
    assert Receipt.decode(receipt.encode()) == receipt


@pytest.mark.parametrize("reason", list(Refusal))
def test_every_refusal_comes_back_and_says_what_to_do(reason: Refusal) -> None:
    receipt = Receipt(task=TASK, sequence=9, outcome=Outcome.REJECTED, version=4, reason=reason)
    assert Receipt.decode(receipt.encode()) == receipt
    assert reason.advice.endswith(".")


@pytest.mark.parametrize("mode", list(CodecMode))
def test_an_announcement_comes_back_and_is_small(mode: CodecMode) -> None:
    announcement = Announcement(
        task=TASK,
        version=2**40,
        sha256="ab" * 32,
        size_bytes=2**33,
        paused=True,
        training=TrainingPolicy(learning_rate=0.1, epochs=3, interval_s=0.0),
        codec=CodecPolicy(mode=mode, bits=8, density=0.3, rank=2),
    )
    raw = announcement.encode()
    assert Announcement.decode(raw) == announcement
    assert len(raw) <= 2_000


def test_a_status_comes_back() -> None:
    status = Status(state=StatusState.OFFLINE, agent="0.1.0", runtime="onnx")
    assert Status.decode(status.encode()) == status


GOOD: dict[int, object] = {0: 1, 1: bytes(16), 2: 1, 3: 0, 4: 10, 5: {}, 6: b""}


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"", "begin as a map"),
        (b"not cbor", "begin as a map"),
        (b"\xa7\x00", "not CBOR"),
        (b"\xa1\x00" * 100_000, "not CBOR"),
        (cbor2.dumps({n: n for n in range(17)}), "at most 16 entries"),
        (cbor2.dumps({**GOOD, 2: 10**5000}), "not CBOR"),
        (cbor2.dumps({**GOOD, 5: {0: 10**400}}), "not CBOR"),
        (cbor2.dumps({**GOOD, 10**5000: 1}), "not CBOR"),
        (cbor2.dumps({**GOOD, 5: {(-1, -2): 1}}), "not CBOR"),
        (b"\xa1\x00\xc1\x00", "tag"),
        (cbor2.dumps(GOOD) + b"\x00", "trailing"),
        (cbor2.dumps([1, 2]), "begin as a map"),
        (cbor2.dumps({**GOOD, 0: 2}), "format version 1"),
        (cbor2.dumps({**GOOD, 0: True}), "format version 1"),
        (cbor2.dumps({**GOOD, 1: bytes(15)}), "16 bytes"),
        (cbor2.dumps({**GOOD, 2: 0}), "integer from 1"),
        (cbor2.dumps({**GOOD, 2: "1"}), "integer from 1"),
        (cbor2.dumps({**GOOD, 3: -1}), "integer from 0"),
        (cbor2.dumps({**GOOD, 3: 2**60}), "integer from 0"),
        (cbor2.dumps({**GOOD, 5: {0: float("nan")}}), "a number"),
        (cbor2.dumps({**GOOD, 5: {99: 1.0}}), "unknown key 99"),
        (cbor2.dumps({**GOOD, 6: "text"}), "byte string"),
        (cbor2.dumps({**GOOD, 7: 1}), "unknown key 7"),
        (cbor2.dumps({k: v for k, v in GOOD.items() if k != 6}), "6 is missing"),
        (bytes(900_001), "at most 900000"),
    ],
)
def test_what_is_not_an_update_is_refused(raw: bytes, says: str) -> None:
    with pytest.raises(MessageError, match=says):
        Update.decode(raw)


@given(st.binary(max_size=200))
def test_random_bytes_are_refused_by_name(raw: bytes) -> None:
    for message in (Update, Receipt, Announcement, Status):
        with pytest.raises(MessageError):
            message.decode(raw)


@pytest.mark.parametrize(
    "topic",
    ["", "rivulet/v1/devices/A/updates", "rivulet/v2/devices/a/updates", "rivulet/v1/devices/a"],
)
def test_a_foreign_topic_has_no_device(topic: str) -> None:
    with pytest.raises(MessageError):
        topics.device_of(topic)


def test_topics_name_their_device_and_task() -> None:
    assert topics.device_of(topics.updates("pi-1")) == "pi-1"
    assert topics.device_of(topics.status("pi-1")) == "pi-1"
    assert topics.task_of(topics.announcement(TASK)) == TASK
