"""Whatever a message holds, it comes to a decision."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator.admission import AdmissionPolicy
from aggregator.ledger import Decision, UpdateKey
from aggregator.norms import Norms
from aggregator.rates import Rates
from aggregator.reception import Inbound, Received, receive
from tests.aggregator.workshop import make_bundle, make_update
from wire import topics
from wire.bundle import Bundle
from wire.manifest import ParameterSpec
from wire.messages import Outcome, Refusal, Status, StatusState, Update

BITS = (63, 64, 65, 1_400, 17_000)
STATUS = Status(state=StatusState.ONLINE, agent="0.1.0", runtime="onnx").encode()

# Python refuses to print the largest of these, so they must not stand in a strategy themselves.
huge = st.sampled_from(BITS).map(lambda bits: 2**bits)
numbers = st.integers() | huge | huge.map(lambda value: -value) | st.floats()
leaves = st.none() | st.booleans() | numbers | st.text(max_size=50) | st.binary(max_size=50)
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(leaves, inner, max_size=4),
    max_leaves=10,
)


class View:
    """A task of a bundle, at version 0."""

    def __init__(self, bundle: Bundle) -> None:
        self.specs: Sequence[ParameterSpec] = bundle.manifest.federated
        self.version = 0
        self.interval_s = 60.0
        self.norms = Norms()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder: Path = tmp_path_factory.mktemp("bundle")
    return make_bundle(folder)


def received(bundle: Bundle, *payloads: bytes, topic: str = topics.updates("a")) -> Received:
    def decisions(_keys: Sequence[UpdateKey]) -> Mapping[UpdateKey, Decision]:
        return {}

    return receive(
        [Inbound(topic, payload, lambda: None) for payload in payloads],
        tasks={bundle.task: View(bundle)},
        decisions=decisions,
        enrolled=None,
        rates=Rates().trial(1.0),
        policy=AdmissionPolicy(),
        now=1.0,
    )


def check_answered(bundle: Bundle, payload: bytes) -> None:
    """A good update stays good beside any other message, on either topic."""
    good = make_update(bundle, 1_000_000_007).encode()
    result = received(bundle, payload, good)
    unreadable = sum((result.intake.unreadable or {}).values())
    assert len(result.receipts) + unreadable == 2
    assert result.receipts[-1][1].outcome is Outcome.ACCEPTED
    for _, receipt in result.receipts:
        receipt.encode()
    received(bundle, payload, topic=topics.status("a"))


@given(payload=st.binary(max_size=200))
def test_any_bytes_are_answered(tiny: Bundle, payload: bytes) -> None:
    check_answered(tiny, payload)


@given(value=values)
def test_any_cbor_is_answered(tiny: Bundle, value: Any) -> None:
    check_answered(tiny, cbor2.dumps(value))


@given(key=st.integers(0, 7), value=values)
def test_any_field_of_an_update_may_hold_anything(tiny: Bundle, key: int, value: Any) -> None:
    fields = cbor2.loads(make_update(tiny, 1).encode())
    check_answered(tiny, cbor2.dumps({**fields, key: value}))


@given(key=st.integers(0, 4), value=values)
def test_any_field_of_a_status_may_hold_anything(tiny: Bundle, key: int, value: Any) -> None:
    payload = cbor2.dumps({**cbor2.loads(STATUS), key: value})
    result = received(tiny, payload, topic=topics.status("a"))
    assert len(result.intake.statuses) + sum((result.intake.unreadable or {}).values()) == 1


@given(payload=st.binary(max_size=200))
def test_any_content_of_an_update_is_answered(tiny: Bundle, payload: bytes) -> None:
    fields = cbor2.loads(make_update(tiny, 1).encode())
    check_answered(tiny, cbor2.dumps({**fields, 6: payload}))


def test_an_error_that_nobody_thought_of_makes_a_message_malformed(
    tiny: Bundle, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_raw: bytes) -> Update:
        raise OverflowError("int too large to convert to float")

    monkeypatch.setattr(Update, "decode", fail)
    with caplog.at_level(logging.ERROR):
        result = received(tiny, b"x")
    assert result.intake.unreadable == {Refusal.MALFORMED: 1}
    assert "OverflowError" in result.intake.events[0].detail
    assert "OverflowError" in caplog.text


def test_an_error_that_nobody_thought_of_makes_an_update_wrong(
    tiny: Bundle, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_update: Update, **_: object) -> Refusal:
        raise IndexError("out of bounds")

    monkeypatch.setattr("aggregator.reception.admit", fail)
    with caplog.at_level(logging.ERROR):
        result = received(tiny, make_update(tiny, 1).encode())
    assert [r.reason for r in result.intake.rejections] == [Refusal.WRONG_SHAPE]
    assert "IndexError" in caplog.text
