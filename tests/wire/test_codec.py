"""Laws that hold for every delta and every policy."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.wire.strategies import Case, deltas, policies, specs_of
from wire.codec import decode_delta, encode_and_decode, encode_delta
from wire.codec.auto import form_within
from wire.codec.low_rank import directions
from wire.codec.tensor import SMALLEST
from wire.delta import RowBlock, Tensor, add, squared_norm
from wire.errors import CodecError, NotFiniteError
from wire.manifest import ParameterSpec, Role
from wire.policy import CodecMode, CodecPolicy

TABLE = (ParameterSpec("item", Role.ROWS, (10, 2)),)
UNBIASED = (CodecMode.ROWS, CodecMode.RANDOM_ENTRIES, CodecMode.RANDOM_ROWS)
SEEDS = st.integers(0, 2**32 - 1)


def rows_of(tensor: Tensor) -> RowBlock:
    assert isinstance(tensor, RowBlock)
    return tensor


def bits_of(tensor: Tensor) -> tuple[tuple[int, ...], bytes]:
    values = tensor.values if isinstance(tensor, RowBlock) else tensor
    assert values.dtype == np.float32
    return values.shape, values.tobytes()


def energy(tensor: Tensor) -> float:
    return squared_norm({"": tensor})


def lost(delta: dict[str, Tensor], decoded: dict[str, Tensor], name: str) -> float:
    return squared_norm(add({name: delta[name]}, {name: decoded[name]}, -1.0))


@given(deltas())
def test_raw_is_exact(case: Case) -> None:
    delta, specs = case
    decoded = decode_delta(encode_delta(delta, specs, CodecPolicy(mode=CodecMode.RAW)), specs)
    assert squared_norm(add(delta, decoded, -1.0)) == 0.0


@given(deltas(), policies(), SEEDS)
@settings(max_examples=300)
def test_decoding_never_adds_error_beyond_the_delta_itself(
    case: Case, policy: CodecPolicy, seed: int
) -> None:
    delta, specs = case
    payload = encode_delta(delta, specs, policy, np.random.default_rng(seed))
    decoded = decode_delta(payload, specs)
    for name in delta:
        assert lost(delta, decoded, name) <= energy(delta[name]) * (1.0 + 1e-6)


@given(deltas(), st.sampled_from((0.0, 1e-7, 1e-3, 0.05, 0.33, 0.9)))
@settings(max_examples=300)
def test_auto_loses_at_most_what_is_allowed(case: Case, nmse: float) -> None:
    delta, specs = case
    policy = CodecPolicy(mode=CodecMode.AUTO, nmse=nmse)
    decoded = decode_delta(encode_delta(delta, specs, policy), specs)
    for name, tensor in delta.items():
        values = tensor.values if isinstance(tensor, RowBlock) else tensor
        if np.abs(values).max(initial=0.0) >= SMALLEST:
            assert lost(delta, decoded, name) <= nmse * energy(tensor) * (1.0 + 1e-9)


@given(deltas(), policies(), SEEDS)
def test_encoding_is_deterministic_and_says_no_more_than_the_mode_does(
    case: Case, policy: CodecPolicy, seed: int
) -> None:
    delta, specs = case
    payload = encode_delta(delta, specs, policy, np.random.default_rng(seed))
    assert payload == encode_delta(delta, specs, policy, np.random.default_rng(seed))
    rows = rows_of(decode_delta(payload, specs)["item"]).rows
    if policy.mode not in (CodecMode.RANDOM_ENTRIES, CodecMode.RANDOM_ROWS):
        assert np.isin(rows, rows_of(delta["item"]).rows).all()
    assert (np.diff(rows) > 0).all()


@given(deltas(), policies(), st.booleans(), st.booleans(), SEEDS)
@settings(max_examples=300)
def test_the_sender_knows_bit_for_bit_what_the_reader_gets(
    case: Case, policy: CodecPolicy, all_rows: bool, unbiased: bool, seed: int
) -> None:
    delta, specs = case
    policy = replace(policy, all_rows=all_rows)
    # The weights of drawn places, up to 100 here, must not take a value out of float32.
    if unbiased and policy.mode in UNBIASED and energy(delta["item"]) < 1e60:
        density = 1.0 if policy.mode is CodecMode.ROWS else policy.density
        policy = replace(policy, unbiased=True, residual_keep=0.0, density=density)
    payload, told = encode_and_decode(delta, specs, policy, np.random.default_rng(seed))
    decoded = decode_delta(payload, specs)
    assert list(told) == list(decoded)
    for name, tensor in decoded.items():
        if isinstance(tensor, RowBlock):
            np.testing.assert_array_equal(rows_of(told[name]).rows, tensor.rows)
        assert bits_of(told[name]) == bits_of(tensor)


@given(deltas(), policies(), SEEDS)
def test_what_was_decoded_can_be_encoded_again(case: Case, policy: CodecPolicy, seed: int) -> None:
    delta, specs = case
    decoded = decode_delta(encode_delta(delta, specs, policy, np.random.default_rng(seed)), specs)
    exact = encode_delta(decoded, specs, CodecPolicy(mode=CodecMode.RAW))
    assert squared_norm(add(decoded, decode_delta(exact, specs), -1.0)) == 0.0


@pytest.mark.parametrize("mode", list(CodecMode))
@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (7, 1), (7, 5)])
@pytest.mark.parametrize("density", [0.01, 1.0])
def test_the_smallest_shapes(mode: CodecMode, shape: tuple[int, int], density: float) -> None:
    specs = (ParameterSpec("item", Role.ROWS, shape), ParameterSpec("bias", Role.DENSE, shape[:1]))
    values = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    delta: dict[str, Tensor] = {
        "item": RowBlock(np.arange(shape[0]), values),
        "bias": values[:, 0],
    }
    policy = CodecPolicy(mode=mode, density=density)
    decoded = decode_delta(encode_delta(delta, specs, policy), specs)
    assert squared_norm(add(delta, decoded, -1.0)) <= squared_norm(delta)
    assert decoded["bias"].shape == shape[:1]  # type: ignore[union-attr]


def test_more_dimensions_than_two() -> None:
    specs = (ParameterSpec("kernel", Role.DENSE, (4, 3, 2, 2)),)
    kernel = np.random.default_rng(1).normal(size=(4, 3, 2, 2)).astype(np.float32)
    payload = encode_delta({"kernel": kernel}, specs, CodecPolicy(mode=CodecMode.RAW))
    np.testing.assert_array_equal(decode_delta(payload, specs)["kernel"], kernel)


def test_nothing_learned_costs_three_bits_a_tensor() -> None:
    specs = specs_of(100, 8)
    zero: dict[str, Tensor] = {"item": RowBlock(np.array([4]), np.zeros((1, 8), np.float32))}
    for mode in CodecMode:
        payload = encode_delta(zero, specs, CodecPolicy(mode=mode))
        assert payload == b"\x10\x00"
        assert rows_of(decode_delta(payload, specs)["item"]).rows.size == 0


def test_low_rank_keeps_a_rank_one_delta() -> None:
    rng = np.random.default_rng(3)
    values = np.outer(rng.normal(size=40), rng.normal(size=16)).astype(np.float32)
    delta = {"item": RowBlock(np.arange(0, 400, 10), values)}
    specs = (ParameterSpec("item", Role.ROWS, (1000, 16)),)
    payload = encode_delta(delta, specs, CodecPolicy(mode=CodecMode.LOW_RANK, bits=8, rank=1))
    assert squared_norm(add(delta, decode_delta(payload, specs), -1.0)) < 1e-3 * squared_norm(delta)
    assert len(payload) < values.nbytes / 15


def test_low_rank_takes_no_more_factors_than_the_error_asks_for() -> None:
    rng = np.random.default_rng(3)
    values = rng.normal(size=(60, 2)) @ np.diag([10.0, 1.0]) @ rng.normal(size=(2, 16))
    delta = {"item": RowBlock(np.arange(60), values.astype(np.float32))}
    specs = (ParameterSpec("item", Role.ROWS, (1000, 16)),)
    sizes = {
        (rank, nmse): len(
            encode_delta(
                delta, specs, CodecPolicy(mode=CodecMode.LOW_RANK, bits=8, rank=rank, nmse=nmse)
            )
        )
        for rank in (1, 4)
        for nmse in (0.1, 1e-3)
    }
    assert sizes[4, 0.1] == sizes[1, 0.1] == sizes[1, 1e-3] < sizes[4, 1e-3]


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


@pytest.mark.parametrize("nmse", [1e-16, 1e-13, 1e-10, 1e-7, 1e-4])
def test_directions_of_nearly_equal_energy_are_told_from_what_is_left(nmse: float) -> None:
    rng = np.random.default_rng(0)
    for tilt in (0.5, 0.9, 0.93, 0.99, 1.0):
        left = np.linalg.qr(rng.normal(size=(102, 4)))[0]
        right = np.linalg.qr(rng.normal(size=(4, 4)))[0]
        values = (left * [0.03, 0.03 * tilt, 3e-4, 1.6e-4] @ right).astype(np.float32)
        for block in (values, values.T.copy()):
            form = form_within(block, nmse, universe=200, all_rows=True)
            lost = np.square(block.astype(np.float64) - form.values()).sum()
            assert lost <= nmse * np.square(block.astype(np.float64)).sum()
            exact, taken = block.astype(np.float64), 0.0
            vectors = []
            for vector, energy in directions(exact):
                vectors.append(vector)
                taken += energy
                basis = np.linalg.qr(np.array(vectors).T)[0]
                left_over = np.square(exact - exact @ basis @ basis.T).sum()
                total = np.square(exact).sum()
                assert left_over <= total - taken + 1e-13 * total
