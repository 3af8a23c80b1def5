"""The codec's laws, its golden bytes, and what the decoder refuses."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.wire.strategies import deltas, policies, random_delta, specs_of
from wire.codec import decode_delta, encode_delta
from wire.delta import RowBlock, Tensor, add, squared_norm
from wire.errors import CodecError, NotFiniteError
from wire.feedback import compensate, leftover
from wire.manifest import ParameterSpec, Role
from wire.policy import CodecMode, CodecPolicy

Case = tuple[dict[str, Tensor], tuple[ParameterSpec, ...]]
TABLE = (ParameterSpec("item", Role.ROWS, (10, 2)),)


def rows_of(tensor: Tensor) -> RowBlock:
    assert isinstance(tensor, RowBlock)
    return tensor


@given(deltas())
def test_raw_is_exact(case: Case) -> None:
    delta, specs = case
    decoded = decode_delta(encode_delta(delta, specs, CodecPolicy(mode=CodecMode.RAW)), specs)
    assert squared_norm(add(delta, decoded, -1.0)) == 0.0


@given(deltas(), policies())
def test_decoding_never_adds_error_beyond_the_delta_itself(case: Case, policy: CodecPolicy) -> None:
    delta, specs = case
    decoded = decode_delta(encode_delta(delta, specs, policy), specs)
    error = squared_norm(add(delta, decoded, -1.0))
    # Coarse levels may overshoot an entry, never the whole by more than itself.
    assert error <= squared_norm(delta) * (1.0 + 1e-6)


@given(deltas(), policies())
def test_encoding_is_deterministic_and_decoded_rows_are_among_the_touched(
    case: Case, policy: CodecPolicy
) -> None:
    delta, specs = case
    payload = encode_delta(delta, specs, policy)
    assert payload == encode_delta(delta, specs, policy)
    decoded = decode_delta(payload, specs)
    assert np.isin(rows_of(decoded["item"]).rows, rows_of(delta["item"]).rows).all()


@given(st.integers(0, 2**32 - 1), policies(), st.integers(1, 12))
@settings(max_examples=40)
def test_error_feedback_conserves_what_was_learned(
    seed: int, policy: CodecPolicy, rounds: int
) -> None:
    specs = specs_of(50, 6)
    learned: dict[str, Tensor] = {}
    sent: dict[str, Tensor] = {}
    residual: dict[str, Tensor] = {}
    for at in range(rounds):
        delta = random_delta(seed + at, 50, 6, 20)
        compensated = compensate(delta, residual)
        decoded = decode_delta(encode_delta(compensated, specs, policy), specs)
        residual = leftover(residual, compensated, decoded)
        learned, sent = add(learned, delta), add(sent, decoded)
    lost = squared_norm(add(add(sent, residual), learned, -1.0))
    assert lost <= 1e-9 * (squared_norm(learned) + squared_norm(residual))


def test_a_residual_row_waits_until_it_is_touched_again() -> None:
    residual = {"item": RowBlock(np.array([2, 5]), np.ones((2, 2), np.float32))}
    delta = {"item": RowBlock(np.array([5, 7]), np.ones((2, 2), np.float32))}
    compensated = compensate(delta, residual)
    assert rows_of(compensated["item"]).rows.tolist() == [5, 7]
    assert rows_of(compensated["item"]).values[:, 0].tolist() == [2, 1]
    after = rows_of(leftover(residual, compensated, compensated)["item"])
    assert after.at(np.array([2, 5, 7]))[:, 0].tolist() == [1, 0, 0]


@pytest.mark.parametrize(
    "policy",
    [
        CodecPolicy(mode=CodecMode.TOP_K, bits=1, density=0.1),
        CodecPolicy(mode=CodecMode.TOP_K, bits=8, density=0.05),
        CodecPolicy(mode=CodecMode.LOW_RANK, bits=4, rank=1),
    ],
)
def test_a_repeated_delta_arrives_in_full(policy: CodecPolicy) -> None:
    specs = specs_of(60, 8)
    delta = random_delta(7, 60, 8, 30)
    sent: dict[str, Tensor] = {}
    residual: dict[str, Tensor] = {}
    rounds = 400
    for _ in range(rounds):
        compensated = compensate(delta, residual)
        decoded = decode_delta(encode_delta(compensated, specs, policy), specs)
        residual, sent = leftover(residual, compensated, decoded), add(sent, decoded)
    missing = add(delta, sent, -1.0 / rounds)
    assert squared_norm(missing) < 0.02 * squared_norm(delta)


def test_low_rank_keeps_a_rank_one_delta() -> None:
    rng = np.random.default_rng(3)
    values = np.outer(rng.normal(size=40), rng.normal(size=16)).astype(np.float32)
    delta = {"item": RowBlock(np.arange(0, 400, 10), values)}
    specs = (ParameterSpec("item", Role.ROWS, (1000, 16)),)
    payload = encode_delta(delta, specs, CodecPolicy(mode=CodecMode.LOW_RANK, bits=8, rank=1))
    assert squared_norm(add(delta, decode_delta(payload, specs), -1.0)) < 1e-3 * squared_norm(delta)
    assert len(payload) < values.nbytes / 15


def golden_delta() -> dict[str, Tensor]:
    return {"item": RowBlock(np.array([1, 3]), np.array([[1, -2], [0, 1]], np.float32))}


@pytest.mark.parametrize(
    ("policy", "golden"),
    [
        (
            CodecPolicy(mode=CodecMode.RAW),
            # form; 2 members as a bitmap (rows 1 and 3 of 10); then four float32
            "10 02 ff 5000 0000803f 000000c0 00000000 0000803f",
        ),
        (
            CodecPolicy(mode=CodecMode.TOP_K, bits=1, density=0.25),
            # form; row 1 of 10 as a bitmap; entry 1 of its 2 likewise; mean 2, negative
            "20 01 ff 4000 01 ff 40 00000040 80",
        ),
    ],
)
def test_golden_bytes(policy: CodecPolicy, golden: str) -> None:
    payload = encode_delta(golden_delta(), TABLE, policy)
    assert payload.hex() == golden.replace(" ", "")


def test_golden_bytes_of_a_rice_coded_row() -> None:
    specs = (ParameterSpec("item", Role.ROWS, (1000, 1)),)
    delta = {"item": RowBlock(np.array([700]), np.array([[0.5]], np.float32))}
    payload = encode_delta(delta, specs, CodecPolicy(mode=CodecMode.RAW))
    # Parameter 9: 700 = 1 * 512 + 188, unary 01, remainder 010111100.
    assert payload.hex() == "10 01 09 40 5e00 0000003f".replace(" ", "")


def test_nothing_learned_costs_one_byte_a_tensor() -> None:
    specs = specs_of(100, 8)
    zero = {"item": RowBlock(np.array([4]), np.zeros((1, 8), np.float32))}
    assert encode_delta(zero, specs, CodecPolicy()) == b"\x00\x00"
    assert rows_of(decode_delta(b"\x00\x00", specs)["item"]).rows.size == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_delta_that_is_not_finite_is_not_encoded(bad: float) -> None:
    delta = {"item": RowBlock(np.array([4]), np.array([[bad, 1]], np.float32))}
    with pytest.raises(NotFiniteError):
        encode_delta(delta, TABLE, CodecPolicy())


@pytest.mark.parametrize(
    "delta",
    [
        {"other": np.zeros(3, np.float32)},
        {"item": np.zeros((10, 2), np.float32)},
        {"item": RowBlock(np.array([3, 1]), np.zeros((2, 2), np.float32))},
        {"item": RowBlock(np.array([3, 10]), np.zeros((2, 2), np.float32))},
        {"item": RowBlock(np.array([3]), np.zeros((1, 3), np.float32))},
    ],
)
def test_a_delta_that_does_not_fit_is_not_encoded(delta: dict[str, Tensor]) -> None:
    with pytest.raises(CodecError):
        encode_delta(delta, TABLE, CodecPolicy())


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        ("", "truncated"),
        ("0000", "trailing"),
        ("90", "unknown form"),
        ("10 0b", "count of 11"),
        ("10 8200", "overlong"),
        ("10 02 20 c0 c0", "unknown index form"),
        ("10 02 fe", "counts fewer"),
        ("10 02 ff 80 00", "marks 1"),
        ("10 02 ff c0 01", "padding"),
        ("10 02 01 c0 c0 0000803f", "truncated"),
        ("10 02 01 00 c0", "truncated"),
        ("10 02 03 c0 fc", "the bound is 10"),
        ("10 01 03 80 20 0000c07f 00000000", "not finite"),
        ("20 01 03 80 20 01 ff 40 0000807f 80", "not finite"),
        ("30 01 03 80 20 01", "low-rank form of 1 bit"),
        ("32 01 03 80 20 02", "count of 2"),
    ],
)
def test_what_the_decoder_refuses(payload: str, says: str) -> None:
    with pytest.raises(CodecError, match=says):
        decode_delta(bytes.fromhex(payload.replace(" ", "")), TABLE)


def test_a_header_cannot_make_the_decoder_take_memory() -> None:
    huge = (ParameterSpec("item", Role.ROWS, (1 << 24, 64)),)
    every_row = bytes.fromhex("32 80808008 fe 01".replace(" ", "")) + bytes(200)
    with pytest.raises(CodecError, match="at most"):
        decode_delta(every_row, huge)


@given(st.binary(max_size=300))
@settings(max_examples=300)
def test_random_bytes_are_decoded_or_refused_by_name(payload: bytes) -> None:
    specs = specs_of(40, 5)
    try:
        decoded = decode_delta(payload, specs)
    except CodecError:
        return
    assert set(decoded) == {"item", "head"}


@given(deltas(), policies(), st.data())
@settings(max_examples=150)
def test_a_damaged_payload_is_decoded_or_refused_by_name(
    case: Case, policy: CodecPolicy, data: st.DataObject
) -> None:
    delta, specs = case
    payload = bytearray(encode_delta(delta, specs, policy))
    payload[data.draw(st.integers(0, len(payload) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        decoded = decode_delta(bytes(payload), specs)
    except CodecError:
        return
    assert rows_of(decoded["item"]).values.shape[1] == specs[0].shape[1]
