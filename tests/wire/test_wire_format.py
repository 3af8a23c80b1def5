"""The document, the plain decoder written from it, and ``wire`` say the same."""

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pycddl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.wire import plain_decoder
from tests.wire.make_vectors import (
    VECTORS,
    Case,
    Message,
    SpecList,
    decoder_of,
    fields_of,
    refusal_of,
    shown,
    specs_from,
    tensors_of,
)
from tests.wire.strategies import Case as DeltaCase
from tests.wire.strategies import deltas, policies, specs_of
from tests.wire.test_codec_golden import packed
from wire.codec import decode_delta, encode_delta
from wire.messages import (
    MAX_MESSAGE_BYTES,
    Announcement,
    Metric,
    Outcome,
    Receipt,
    Refusal,
    Status,
    StatusState,
    Update,
)
from wire.parameters import map_parameters, write_parameters
from wire.patch import (
    apply_patch,
    decode_row_numbers,
    encode_patch,
    encode_row_numbers,
    encode_rows,
)
from wire.policy import CodecMode, CodecPolicy, TrainingPolicy

DOCUMENT = (Path(__file__).parents[2] / "firmware_notes" / "wire-format.md").read_text()

# What is released is pinned: add cases, and their file's digest changes here, for all to see.
DIGESTS = {
    "deltas.json": "ea3f10c59c1840ce8a7194618c6159fc3d3419218b8e6c9e5bcb006ac7d29050",
    "messages.json": "4d6dd61bbad66d82755df7dfef71de0bf420e9a7dbaf4864edbc9542e9cb5d9f",
    "refused_deltas.json": "ef77398ad7478c3053b213ea669ff91e009f6f1a6bab62c09a67051a5ad1887b",
    "refused_messages.json": "ca4de2ec0bba89c7654245d6ba0d631ccb08f2bb13ccc2b6739d8557c7ba9d7c",
}

SAID_BY_CDDL = {
    "version 2",
    "a task of 15 bytes",
    "sequence 0",
    "a counter of 2**53",
    "metrics as a list",
    "an unknown key",
    "no payload",
    "accepted with a reason",
    "rejected without a reason",
    "an unknown reason",
    "an unknown state",
    "an unknown mode",
    "3 bits",
    "rank 17",
    "101 epochs",
    "a training policy of 6 values",
}


def cases(file: str) -> list[Any]:
    loaded: list[Case] = json.loads((VECTORS / file).read_text())
    return [pytest.param(case, id=case["name"]) for case in loaded]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)


def first_column(block: str) -> str:
    return "".join(line.split("  ")[0].replace(" ", "") for line in block.splitlines())


def read(decode: Callable[[], object]) -> str:
    """What is decoded, with the sign of every zero; or the name of the refusal."""
    refused = refusal_of(decode)
    return refused or json.dumps(decode())


def read_plainly(decode: Callable[[], object]) -> str:
    try:
        return json.dumps(decode())
    except plain_decoder.RefusedError as refused:
        return refused.name


def delta_read(payload: bytes, specs: SpecList) -> str:
    return read(lambda: tensors_of(decode_delta(payload, specs_from(specs))))


def delta_read_plainly(payload: bytes, specs: SpecList) -> str:
    plain = [(name, role, tuple(shape)) for name, role, shape in specs]
    return read_plainly(
        lambda: {
            name: {"rows": rows, "values": values}
            for name, (rows, values) in plain_decoder.decode_delta(payload, plain).items()
        }
    )


def message_read(kind: str, raw: bytes) -> str:
    return read(lambda: shown(fields_of(decoder_of(kind)(raw))))


def message_read_plainly(kind: str, raw: bytes) -> str:
    return read_plainly(lambda: shown(plain_decoder.decode_message(kind, raw)))


def listed(catalogue: int, width: int) -> SpecList:
    return [[spec.name, spec.role.value, list(spec.shape)] for spec in specs_of(catalogue, width)]


@pytest.mark.parametrize("file", DIGESTS)
def test_vectors_are_as_they_were_released(file: str) -> None:
    assert hashlib.sha256((VECTORS / file).read_bytes()).hexdigest() == DIGESTS[file]


@pytest.mark.parametrize("case", [*cases("deltas.json"), *cases("refused_deltas.json")])
def test_both_decoders_read_a_delta_as_pinned(case: Case) -> None:
    payload, specs = bytes.fromhex(case["payload"]), case["specs"]
    expected = case.get("refused") or json.dumps(case["tensors"])
    assert delta_read(payload, specs) == expected
    assert delta_read_plainly(payload, specs) == expected


@pytest.mark.parametrize("case", [*cases("messages.json"), *cases("refused_messages.json")])
def test_both_decoders_read_a_message_as_pinned(case: Case) -> None:
    kind, raw = case["kind"], bytes.fromhex(case["message"])
    expected = case.get("refused") or json.dumps(case["fields"])
    assert message_read(kind, raw) == expected
    assert message_read_plainly(kind, raw) == expected


def test_vectors_cover_every_form_and_every_coding() -> None:
    names = {case.values[0]["name"] for case in cases("deltas.json")}
    assert {f"coding {coding}" for coding in range(16)} <= names
    payloads = [bytes.fromhex(case.values[0]["payload"]) for case in cases("deltas.json")]
    assert {payload[0] >> 1 & 7 for payload in payloads} == set(range(8))


@given(deltas(), policies())
@settings(max_examples=60, deadline=None)
def test_both_decoders_read_what_is_sent(case: DeltaCase, policy: CodecPolicy) -> None:
    delta, specs = case
    payload = encode_delta(delta, specs, policy, np.random.default_rng(1))
    sizes = listed(*specs[0].shape)
    assert delta_read_plainly(payload, sizes) == delta_read(payload, sizes)


@given(deltas(), policies(), st.data())
@settings(max_examples=60, deadline=None)
def test_both_decoders_refuse_what_is_damaged_by_the_same_name(
    case: DeltaCase, policy: CodecPolicy, data: st.DataObject
) -> None:
    delta, specs = case
    payload = bytearray(encode_delta(delta, specs, policy, np.random.default_rng(1)))
    payload[data.draw(st.integers(0, len(payload) - 1))] ^= data.draw(st.integers(1, 255))
    sizes = listed(*specs[0].shape)
    assert delta_read_plainly(bytes(payload), sizes) == delta_read(bytes(payload), sizes)


@given(st.binary(max_size=120))
@settings(max_examples=300, deadline=None)
def test_both_decoders_read_random_bytes_alike(rest: bytes) -> None:
    payload = b"\x10" + rest if not rest else bytes([0x10 | rest[0] & 0x0F]) + rest[1:]
    assert delta_read_plainly(payload, listed(40, 5)) == delta_read(payload, listed(40, 5))


COUNTERS = st.integers(0, 2**53 - 1)
SEQUENCES = st.integers(1, 2**53 - 1)
TASKS = st.binary(min_size=16, max_size=16).map(bytes.hex)
TEXTS = st.text(st.characters(categories=("L", "N", "P", "S")), min_size=1, max_size=40)
METRICS = st.dictionaries(st.sampled_from(Metric), st.floats(allow_nan=False))
UPDATES = st.builds(
    Update,
    task=TASKS,
    sequence=SEQUENCES,
    base_version=COUNTERS,
    examples=COUNTERS,
    payload=st.binary(max_size=300),
    metrics=METRICS,
)
ANSWERS = st.one_of(
    st.tuples(st.sampled_from((Outcome.ACCEPTED, Outcome.DUPLICATE)), st.none()),
    st.tuples(st.just(Outcome.REJECTED), st.sampled_from(Refusal)),
)
RECEIPTS = st.builds(
    lambda task, sequence, answer, version: Receipt(
        task=task, sequence=sequence, outcome=answer[0], reason=answer[1], version=version
    ),
    TASKS,
    SEQUENCES,
    ANSWERS,
    COUNTERS,
)
TRAININGS = st.builds(
    TrainingPolicy,
    learning_rate=st.floats(0, 1e3, exclude_min=True),
    epochs=st.integers(1, 100),
    batch_size=st.integers(1, 65_536),
    negatives=st.integers(0, 1_000),
    interval_s=st.integers(0, 10**7) | st.floats(0, 1e7),
    proximal=st.floats(0, 1e3),
    clip=st.floats(0, 1e9),
)
ANNOUNCEMENTS = st.builds(
    Announcement,
    task=TASKS,
    version=COUNTERS,
    sha256=st.binary(min_size=32, max_size=32).map(bytes.hex),
    size_bytes=st.integers(0, 1 << 40),
    paused=st.booleans(),
    training=TRAININGS,
    codec=policies(),
)
STATUSES = st.builds(Status, state=st.sampled_from(StatusState), agent=TEXTS, runtime=TEXTS)
MESSAGES = st.one_of(UPDATES, RECEIPTS, ANNOUNCEMENTS, STATUSES)

# A schema for each kind: of a choice between maps the library lets pass what fits none of them.
SCHEMAS = {
    kind: pycddl.Schema(f"root = {kind}\n{blocks('cddl')[0]}")
    for kind in ("update", "receipt", "announcement", "status")
}


@given(MESSAGES)
@settings(max_examples=200, deadline=None)
def test_both_decoders_read_a_message_that_fits_the_cddl(message: Message) -> None:
    kind, raw = type(message).__name__.lower(), message.encode()
    SCHEMAS[kind].validate_cbor(raw)
    assert message_read_plainly(kind, raw) == message_read(kind, raw)


@given(MESSAGES, st.data())
@settings(max_examples=200, deadline=None)
def test_both_decoders_refuse_a_truncated_message(message: Message, data: st.DataObject) -> None:
    kind, raw = type(message).__name__.lower(), message.encode()
    cut = raw[: data.draw(st.integers(0, len(raw) - 1))]
    assert message_read_plainly(kind, cut) == message_read(kind, cut) == "malformed"


def test_both_decoders_refuse_a_message_that_is_too_large() -> None:
    raw = bytes(MAX_MESSAGE_BYTES + 1)
    assert message_read("update", raw) == "malformed"
    assert message_read_plainly("update", raw) == "oversize"


def test_there_is_one_block_of_cddl() -> None:
    assert len(blocks("cddl")) == 1


@pytest.mark.parametrize("case", cases("messages.json"))
def test_the_cddl_describes_what_is_sent(case: Case) -> None:
    SCHEMAS[case["kind"]].validate_cbor(bytes.fromhex(case["message"]))


@pytest.mark.parametrize(
    "case",
    [case for case in cases("refused_messages.json") if case.values[0]["name"] in SAID_BY_CDDL],
)
def test_the_cddl_refuses_what_it_can_say(case: Case) -> None:
    with pytest.raises(pycddl.ValidationError):
        SCHEMAS[case["kind"]].validate_cbor(bytes.fromhex(case["message"]))


def test_what_the_cddl_must_refuse_is_in_the_vectors() -> None:
    assert {case.id for case in cases("refused_messages.json")} >= SAID_BY_CDDL


def test_the_example_of_an_update_is_what_is_sent() -> None:
    (example,) = blocks("hex")
    raw = bytes.fromhex(first_column(example))
    update = Update(
        task="00112233445566778899aabbccddeeff",
        sequence=40,
        base_version=1800,
        examples=106,
        metrics={Metric.HR_AT_10: 0.625, Metric.EVAL_LOSS: 0.25},
        payload=packed(first_column(blocks("bits")[0])),
    )
    assert update.encode() == raw
    assert json.loads(message_read_plainly("update", raw)) == shown(fields_of(update))


@pytest.mark.parametrize(
    ("bits", "example"), list(zip(blocks("bits"), blocks("json"), strict=True))
)
def test_the_examples_of_deltas_are_read_as_they_say(bits: str, example: str) -> None:
    case = json.loads(example)
    payload = packed(first_column(bits))
    assert payload.hex() == case["payload"]
    for decode in (delta_read, delta_read_plainly):
        assert json.loads(decode(payload, case["specs"])) == case["tensors"]


def test_the_document_names_every_reason_and_every_mode() -> None:
    for reason in Refusal:
        assert f"| {int(reason)} | `{reason.slug}` |" in DOCUMENT
    assert all(f"`{mode.value}`" in DOCUMENT for mode in CodecMode)


def test_the_example_of_a_patch_leads_where_it_says(tmp_path: Path) -> None:
    (example,) = blocks("patch")
    case = json.loads(example)
    specs = specs_from(case["specs"])
    path = tmp_path / "parameters"
    with write_parameters(path, specs) as state:
        for name, tensor in case["before"].items():
            matrix = state[name].reshape(len(state[name]), -1)
            matrix[tensor["rows"]] = tensor["values"]
    assert hashlib.sha256(path.read_bytes()).hexdigest() == case["sha256_before"]
    before = {name: np.array(values) for name, values in map_parameters(path).items()}
    state = map_parameters(path, writable=True)
    apply_patch(state, bytes.fromhex(case["patch"]), specs)
    after = {name: np.array(values) for name, values in state.items()}
    for tensor in state.values():
        tensor.flush()
    assert hashlib.sha256(path.read_bytes()).hexdigest() == case["sha256_after"]
    quarters = dict.fromkeys(after, -2)
    assert encode_patch(before, after, specs, quarters).hex() == case["patch"]
    wanted = decode_row_numbers(bytes.fromhex(case["rows"]), 10)
    assert encode_row_numbers(wanted, 10).hex() == case["rows"]
    assert encode_rows(after, wanted, specs, quarters).hex() == case["found"]
    # The second decoder, and plain addition.
    added = json.loads(delta_read_plainly(bytes.fromhex(case["patch"]), case["specs"]))
    for name, tensor in added.items():
        sums = before[name].reshape(len(before[name]), -1)
        for row, values in zip(tensor["rows"], tensor["values"], strict=True):
            sums[row] += values
        assert np.array_equal(sums.reshape(after[name].shape), after[name])
