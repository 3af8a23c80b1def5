"""Adds golden vectors: ``python -m tests.wire.make_vectors``.

A case that is in its file already stays as it is, so that the format cannot change by running this.
What is expected is what ``wire`` decodes today; the plain decoder must agree before it is pinned.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import cbor2
import numpy as np

from tests.wire.strategies import random_delta, specs_of
from tests.wire.test_codec_golden import ENTRIES_0_1_3, ONE, QUARTER, ROWS_1_AND_3, SEED, packed
from tests.wire.test_codec_refusals import count, message
from wire.codec import decode_delta, encode_delta
from wire.codec.golomb import write_golomb
from wire.codec.index_set import write_index_set
from wire.codec.levels import DIVISORS, MOST_FIXED_BITS, SPARSE
from wire.codec.stream import Writer
from wire.delta import RowBlock, Tensor
from wire.errors import CodecError, MessageError, NotFiniteError
from wire.manifest import ParameterSpec, Role
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

__all__ = [
    "VECTORS",
    "Case",
    "Message",
    "SpecList",
    "decoder_of",
    "fields_of",
    "refusal_of",
    "shown",
    "specs_from",
    "tensors_of",
]

Case = dict[str, Any]
SpecList = list[list[Any]]
"""Specs as in the files: name, role and shape of each tensor."""
Message = Update | Receipt | Announcement | Status

VECTORS = Path(__file__).parent / "vectors"
TASK = "00112233445566778899aabbccddeeff"
TABLE: SpecList = [["item", "rows", [10, 2]]]
LINE: SpecList = [["item", "rows", [10, 12]]]
KERNEL: SpecList = [["kernel", "dense", [2, 1, 2]]]
BOTH: SpecList = [["item", "rows", [40, 5]], ["head", "dense", [3, 4]]]
HUGE: SpecList = [["item", "rows", [1 << 24, 64]]]
ENTRIES_0_1_3_OF_20 = "010 1 111 000 001"
LARGE_SCALE = "11111110 11111"
CODES = np.array([0, 1, 0, 3, 1, 0, 0, 2, 0, 0, 1, 0])


def specs_from(specs: SpecList) -> tuple[ParameterSpec, ...]:
    """The specs of a case as ``wire`` takes them."""
    return tuple(ParameterSpec(name, Role(role), tuple(shape)) for name, role, shape in specs)


def tensors_of(delta: Mapping[str, Tensor]) -> dict[str, Any]:
    """A decoded delta as in the files."""
    return {name: _tensor(tensor) for name, tensor in delta.items()}


def _tensor(tensor: Tensor) -> dict[str, Any]:
    if isinstance(tensor, RowBlock):
        return {"rows": tensor.rows.tolist(), "values": tensor.values.tolist()}
    height = tensor.shape[0]
    return {"rows": list(range(height)), "values": tensor.reshape(height, -1).tolist()}


def fields_of(message: Message) -> dict[int, Any]:
    """A decoded message by the keys that its fields have on the wire."""
    values: tuple[Any, ...]
    match message:
        case Update():
            metrics = {int(metric): value for metric, value in message.metrics.items()}
            counters = (message.sequence, message.base_version, message.examples)
            values = (bytes.fromhex(message.task), *counters, metrics, message.payload)
        case Receipt():
            counters = (message.sequence, int(message.outcome), message.version)
            reason = () if message.reason is None else (int(message.reason),)
            values = (bytes.fromhex(message.task), *counters, *reason)
        case Announcement():
            digests = (bytes.fromhex(message.task), message.version, bytes.fromhex(message.sha256))
            values = (*digests, message.size_bytes, message.paused, *_policies_of(message))
        case Status():
            state = tuple(StatusState).index(message.state)
            return {2: state, 3: message.agent, 4: message.runtime}
    return dict(enumerate(values, start=1))


def _policies_of(message: Announcement) -> tuple[list[Any], list[Any]]:
    codec = message.codec.to_dict()
    mode = tuple(CodecMode).index(message.codec.mode)
    return list(message.training.to_dict().values()), [mode, *list(codec.values())[1:]]


def shown(value: Any) -> Any:
    """Fields as in the files: byte strings as in CBOR's diagnostic notation."""
    if isinstance(value, bytes):
        return f"h'{value.hex()}'"
    if isinstance(value, dict):
        return {str(key): shown(entry) for key, entry in value.items()}
    return value


def refusal_of(decode: Callable[[], object]) -> str | None:
    """The name of the refusal; None where it decodes."""
    try:
        decode()
    except NotFiniteError:
        return Refusal.NOT_FINITE.slug
    except CodecError:
        return Refusal.WRONG_SHAPE.slug
    except MessageError:
        return Refusal.MALFORMED.slug
    return None


def decoder_of(kind: str) -> Callable[[bytes], Message]:
    """What decodes a kind of message."""
    kinds: dict[str, Callable[[bytes], Message]] = {
        "update": Update.decode,
        "receipt": Receipt.decode,
        "announcement": Announcement.decode,
        "status": Status.decode,
    }
    return kinds[kind]


def main() -> None:
    """Add what is missing to every file."""
    VECTORS.mkdir(exist_ok=True)
    _add("deltas.json", (_delta(*case) for case in (*_forms(), *_codings(), *_modes())))
    _add("refused_deltas.json", (_delta(*case) for case in _refused_deltas()))
    _add("messages.json", _messages())
    _add("refused_messages.json", _refused_messages())


def _add(file: str, cases: Iterator[Case]) -> None:
    path = VECTORS / file
    kept: list[Case] = json.loads(path.read_text()) if path.exists() else []
    names = {case["name"] for case in kept}
    kept += [case for case in cases if case["name"] not in names]
    path.write_text("[\n" + ",\n".join(json.dumps(case) for case in kept) + "\n]\n")


def _delta(name: str, specs: SpecList, payload: bytes) -> Case:
    case = {"name": name, "specs": specs, "payload": payload.hex()}
    refused = refusal_of(lambda: decode_delta(payload, specs_from(specs)))
    if refused is not None:
        return {**case, "refused": refused}
    return {**case, "tensors": tensors_of(decode_delta(payload, specs_from(specs)))}


def _forms() -> Iterator[tuple[str, SpecList, bytes]]:
    head, one = f"0001 011 {ROWS_1_AND_3}", f"{ONE} 0000"
    yield "nothing", TABLE, packed("0001 000")
    yield "nothing, dense", KERNEL, packed("0001 000")
    yield "nothing twice", BOTH, packed("0001 000 000")
    yield "dense, one row", KERNEL, packed(f"0001 011 01 01 10 0 0 00 {one}")
    yield "all rows", TABLE, packed(f"0001 011 100 010 {ENTRIES_0_1_3_OF_20} 0 000 {one}")
    yield "signs as a set", TABLE, packed(f"{head} {ENTRIES_0_1_3} 1 01 01 {one}")
    yield "a named row of zeros", TABLE, packed(f"{head} 01 1 0 0 0 {one}")
    yield "no entry at all", TABLE, packed(f"{head} 00 0 {one}")
    yield "negative zero", TABLE, packed(f"{head} {ENTRIES_0_1_3} 0 010 {'0' * 13} 0000")
    yield "subnormal scale", TABLE, packed(f"{head} {ENTRIES_0_1_3} 0 010 {'0' * 12}1 0000")
    yield "largest scale", TABLE, packed(f"{head} {ENTRIES_0_1_3} 0 010 {LARGE_SCALE} 0000")
    small = f"{head} {ENTRIES_0_1_3} 0 010 {ONE} 0001 011 0110000000001"
    yield "step below half a unit in the last place", TABLE, packed(small)
    scaled = f"0001 100 {ROWS_1_AND_3} {{}} {ENTRIES_0_1_3} 0 010 {ONE} 0000"
    yield "row scales 1 and 7", TABLE, packed(scaled.format("0011 001 111"))
    yield "row scales 0 and 255", TABLE, packed(scaled.format(f"1000 01 01 {'0' * 254}1"))
    factors = f"0001 101 {ROWS_1_AND_3} 0001 {ENTRIES_0_1_3} 0 010 {ONE} 0010 011011 {QUARTER}"
    yield "factors of rank 2", TABLE, packed(f"{factors} {ENTRIES_0_1_3} 0 100 {one}")
    drawn = f"0001 110 {SEED} 011 01 011 10 0 1 1 11 00 0 0000 {one}"
    yield "drawn rows, levels", TABLE, packed(drawn)


def _codings() -> Iterator[tuple[str, SpecList, bytes]]:
    """One row of twelve entries, all kept, in every coding of the codes."""
    for coding in range(16):
        writer = Writer()
        for value, width in ((1, 4), (3, 3), *count(1, 10), (1, 1), (0, 2), *count(12, 12)):
            writer.number(value, width)
        writer.number(0b0_000100000010, 13)
        writer.number(127 << 5, 13)
        writer.number(coding, 4)
        _write_codes(writer, coding)
        if coding:
            writer.number(125 << 5, 13)
        yield f"coding {coding}", LINE, writer.getvalue()


def _write_codes(writer: Writer, coding: int) -> None:
    if coding <= MOST_FIXED_BITS:
        writer.codes(np.minimum(CODES, (1 << coding) - 1), coding)
    elif coding == SPARSE:
        write_index_set(writer, np.flatnonzero(CODES), len(CODES))
        writer.unary(CODES[CODES > 0] - 1)
    else:
        write_golomb(writer, 5 * CODES, DIVISORS[coding - SPARSE - 1])


def _modes() -> Iterator[tuple[str, SpecList, bytes]]:
    for rank in (None, 1):
        delta = random_delta(7, 40, 5, 12, rank=rank)
        for name, policy in _policies():
            payload = encode_delta(delta, specs_of(40, 5), policy, np.random.default_rng(3))
            yield f"{name}, {'full rank' if rank is None else 'rank 1'}", BOTH, payload


def _policies() -> Iterator[tuple[str, CodecPolicy]]:
    for mode in CodecMode:
        yield mode.value, CodecPolicy(mode=mode, bits=4, density=0.5, rank=2)
    for mode in (CodecMode.TOP_K, CodecMode.ROWS, CodecMode.RANDOM_ROWS, CodecMode.RANDOM_ENTRIES):
        scaled = CodecPolicy(mode=mode, bits=2, density=0.5, row_scales=True, all_rows=False)
        yield f"{mode.value} with row scales", scaled
    for nmse in (0.0, 0.001, 0.3):
        yield f"auto at {nmse}", CodecPolicy(nmse=nmse)
    unbiased = CodecPolicy(
        mode=CodecMode.RANDOM_ROWS, bits=2, density=0.5, unbiased=True, residual_keep=0.0
    )
    yield "unbiased random rows", unbiased


def _refused_deltas() -> Iterator[tuple[str, SpecList, bytes]]:
    table = f"{ROWS_1_AND_3} {ENTRIES_0_1_3} 0 010"
    for name, bits in {
        "empty": "",
        "version 0": "0000 000",
        "version 2": "0010 000",
        "version 15": "1111 000",
        "a trailing byte": "0001 000 0 00000000",
        "padding that is not zero": "0001 000 1",
        "a count longer than the bound": f"0001 001 101 0000 {'0' * 32}",
        "a count above the bound": f"0001 001 100 011 {'0' * 32}",
        "no rows": "0001 001 000",
        "an index out of range": f"0001 001 001 01 11 1 {'0' * 64}",
        "a second index out of range": f"0001 001 010 0 00001 1 11 11 {'0' * 128}",
        "a unary number without end": f"0001 001 001 {'0' * 30}",
        "raw, truncated": f"0001 001 {ROWS_1_AND_3} {'0' * 100}",
        "half, truncated": f"0001 010 {ROWS_1_AND_3} {'0' * 50}",
        "scale truncated": f"0001 011 {table} 0111",
        "codes truncated": f"0001 011 {table} {ONE} 0111 000",
        "entries above the bound": f"0001 011 {ROWS_1_AND_3} 11 11 {'0' * 32}",
        "negative entries above the bound": f"0001 011 {ROWS_1_AND_3} 10 1 01 0 1 11 1",
        "a base that is infinite": f"0001 011 {table} 11111111 00000 0000",
        "a base that is NaN": f"0001 011 {table} 11111111 10000 0000",
        "a step that is infinite": f"0001 011 {table} {ONE} 0001 010 11111111 00000",
        "a level too large": f"0001 011 {table} {LARGE_SCALE} 0001 010 {LARGE_SCALE}",
        "raw NaN": f"0001 001 001 1 00 0111111111{'0' * 54}",
        "raw infinity": f"0001 001 001 1 00 111111111{'0' * 55}",
        "half infinity": f"0001 010 001 1 00 0111110000000000 {'0' * 16}",
        "a row scale of 256": f"0001 100 001 1 00 1111 {'0' * 16}1 0000",
        "a row scale of 256, sparse": f"0001 100 001 1 00 1000 1 {'0' * 255}1 {'0' * 40}",
        "rank 3 of width 2": f"0001 101 {ROWS_1_AND_3} 0010 {'0' * 64}",
        "rank 16 of width 2": f"0001 101 {ROWS_1_AND_3} 1111 {'0' * 64}",
        "a product too large": (
            f"0001 101 001 1 00 0000 10 0 0 00 {LARGE_SCALE} 0000 1 0 0 {LARGE_SCALE} 0000"
        ),
        "a seed cut short": "0001 110 1101100",
        "no drawn places": f"0001 110 {SEED} 000 {'0' * 32}",
        "too many drawn rows": f"0001 110 {SEED} 100 011 {'0' * 32}",
        "too many drawn entries": f"0001 111 {SEED} 101 0101 {'0' * 32}",
        "drawn places of drawn places": f"0001 110 {SEED} 011 01 110 {'0' * 32}",
        "a form for nothing drawn": f"0001 110 {SEED} 011 01 000 {'0' * 32}",
        "factors of drawn entries, rank 2": f"0001 111 {SEED} 100 010 101 001 1 00 0001",
    }.items():
        yield name, TABLE, packed(bits) if bits else b""
    yield "a tensor is missing", BOTH, packed("0001 000")
    every = count(1 << 24, 1 << 24)
    yield "budget: every row of a huge table", HUGE, message((3, 3), *every) + bytes(20)
    most = count((1 << 17) + 1, 1 << 24)
    yield "budget: a row too many", HUGE, message((5, 3), *most) + bytes(20)
    yield "budget: drawn rows", HUGE, message((6, 3), (0, 32), *every) + bytes(20)
    yield "budget: a dense tensor", [["head", "dense", [1 << 15, 1 << 10]]], b"\x10"
    wide: SpecList = [["item", "rows", [1, (1 << 22) + 1]]]
    yield "a factor of more than 2^23 values", wide, packed(f"0001 101 1 0001 {'0' * 64}")
    half: list[Any] = [1 << 12, 1 << 11]
    two: SpecList = [["a", "dense", half], ["b", "dense", [1]]]
    yield "budget: the second tensor", two, b"\x10\x00"


def _messages() -> Iterator[Case]:
    for name, sent in _sent():
        kind = type(sent).__name__.lower()
        raw, fields = sent.encode(), shown(fields_of(type(sent).decode(sent.encode())))
        yield {"name": name, "kind": kind, "message": raw.hex(), "fields": fields}


def _sent() -> Iterator[tuple[str, Message]]:
    update = Update(task=TASK, sequence=1, base_version=0, examples=0, payload=b"")
    yield "update, smallest", update
    yield (
        "update, largest counters",
        Update(
            task="ff" * 16,
            sequence=2**53 - 1,
            base_version=2**53 - 1,
            examples=2**53 - 1,
            payload=bytes(range(256)),
            metrics={Metric.HR_AT_10: 0.625, Metric.NDCG_AT_10: 1 / 3, Metric.EVAL_LOSS: 1e9},
        ),
    )
    metrics = {Metric.TRAIN_LOSS: -0.5}
    yield (
        "update, one metric",
        Update(
            task=TASK,
            sequence=300,
            base_version=70_000,
            examples=24,
            payload=b"\x10",
            metrics=metrics,
        ),
    )
    for outcome in (Outcome.ACCEPTED, Outcome.DUPLICATE):
        yield outcome.name.lower(), Receipt(task=TASK, sequence=9, outcome=outcome, version=4)
    for reason in Refusal:
        rejected = Receipt(
            task=TASK, sequence=9, outcome=Outcome.REJECTED, version=2**32, reason=reason
        )
        yield f"rejected, {reason.slug}", rejected
    for mode in CodecMode:
        yield f"announcement, {mode.value}", _announcement(CodecPolicy(mode=mode))
    unbiased = CodecPolicy(mode=CodecMode.RANDOM_ROWS, unbiased=True, residual_keep=0.0)
    yield "announcement, unbiased", _announcement(unbiased)
    for state in StatusState:
        yield state.value, Status(state=state, agent="0.1.0", runtime="onnx")
    yield "status, 40 characters", Status(state=StatusState.ONLINE, agent="é" * 40, runtime="x y")


def _announcement(codec: CodecPolicy) -> Announcement:
    return Announcement(
        task=TASK,
        version=1234,
        sha256="ab" * 32,
        size_bytes=1 << 40,
        paused=codec.unbiased,
        training=TrainingPolicy(learning_rate=0.1, epochs=3, interval_s=0.0, proximal=1.0),
        codec=codec,
    )


GOOD: dict[object, object] = {0: 1, 1: bytes(16), 2: 1, 3: 0, 4: 10, 5: {}, 6: b""}
RECEIPT: dict[object, object] = {0: 1, 1: bytes(16), 2: 1, 3: 0, 4: 0}
STATUS: dict[object, object] = {0: 1, 2: 0, 3: "0.1.0", 4: "onnx"}


def _refused_messages() -> Iterator[Case]:
    for kind, name, raw in (*_refused_cbor(), *_refused_fields()):
        refused = refusal_of(partial(decoder_of(kind), raw))
        yield {"name": name, "kind": kind, "message": raw.hex(), "refused": refused}


def _refused_cbor() -> Iterator[tuple[str, str, bytes]]:
    good = cbor2.dumps(GOOD)
    yield "update", "empty", b""
    yield "update", "truncated", good[:-1]
    yield "update", "a trailing byte", good + b"\x00"
    yield "update", "an array", cbor2.dumps([1, 2])
    yield "update", "an indefinite map", b"\xbf" + good[1:] + b"\xff"
    yield "update", "17 entries", cbor2.dumps({n: n for n in range(17)})
    yield "update", "a tag", good.replace(b"\x04\x0a", b"\x04\xc1\x0a")
    yield "update", "a bignum", cbor2.dumps({**GOOD, 2: 1 << 70})
    yield "update", "nested too deeply", cbor2.dumps({**GOOD, 5: {0: [1]}})
    yield "status", "a text that is not UTF-8", cbor2.dumps(STATUS).replace(b"onnx", b"onn\xff")


def _refused_fields() -> Iterator[tuple[str, str, bytes]]:
    changes: dict[str, dict[object, object]] = {
        "version 0": {0: 0},
        "version 2": {0: 2},
        "a boolean as version": {0: True},
        "a task of 15 bytes": {1: bytes(15)},
        "a task as text": {1: "0" * 16},
        "sequence 0": {2: 0},
        "a counter of 2**53": {3: 1 << 53},
        "a negative counter": {4: -1},
        "a boolean as counter": {4: True},
        "metrics as a list": {5: []},
        "an unknown metric": {5: {4: 1.0}},
        "a metric that is NaN": {5: {0: float("nan")}},
        "a metric that is infinite": {5: {0: float("inf")}},
        "a metric above float16": {5: {0: 65_505.0}},
        "a payload as text": {6: "00"},
        "an unknown key": {7: 1},
    }
    for name, change in changes.items():
        yield "update", name, cbor2.dumps({**GOOD, **change})
    twice = cbor2.dumps({**GOOD, 7: 5})
    yield "update", "a key twice", twice.replace(b"\x07\x05", b"\x04\x05")
    yield "update", "true as a key", twice.replace(b"\x07\x05", b"\xf5\x05")
    metrics = cbor2.dumps({**GOOD, 5: {0: 0.5, 1: 0.5}}, canonical=True)
    yield "update", "a metric twice", metrics.replace(b"\x01\xf9\x38\x00", b"\x00\xf9\x38\x00")
    lacking = {key: value for key, value in GOOD.items() if key != 6}
    yield "update", "no payload", cbor2.dumps(lacking)
    yield "receipt", "accepted with a reason", cbor2.dumps({**RECEIPT, 5: 1})
    yield "receipt", "rejected without a reason", cbor2.dumps({**RECEIPT, 3: 2})
    yield "receipt", "an unknown reason", cbor2.dumps({**RECEIPT, 3: 2, 5: 13})
    yield "receipt", "an unknown outcome", cbor2.dumps({**RECEIPT, 3: 3})
    yield "status", "an unknown state", cbor2.dumps({**STATUS, 2: 2})
    yield "status", "an empty text", cbor2.dumps({**STATUS, 3: ""})
    yield "status", "41 characters", cbor2.dumps({**STATUS, 3: "x" * 41})
    yield "status", "a control character", cbor2.dumps({**STATUS, 3: "a\nb"})
    for name, key, at, value in (
        ("an unknown mode", 7, 0, 8),
        ("3 bits", 7, 2, 3),
        ("density 0", 7, 3, 0.0),
        ("rank 17", 7, 4, 17),
        ("unbiased without a random mode", 7, 7, True),
        ("a learning rate of 0", 6, 0, 0.0),
        ("101 epochs", 6, 1, 101),
    ):
        body = cbor2.loads(_announcement(CodecPolicy()).encode())
        body[key][at] = value
        yield "announcement", name, cbor2.dumps(body)
    body = cbor2.loads(_announcement(CodecPolicy()).encode())
    body[7][0], body[7][2] = 6, 1
    yield "announcement", "low-rank with 1 bit", cbor2.dumps(body)
    body = cbor2.loads(_announcement(CodecPolicy()).encode())
    body[6] = body[6][:-1]
    yield "announcement", "a training policy of 6 values", cbor2.dumps(body)


if __name__ == "__main__":
    main()
