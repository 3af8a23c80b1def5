"""Places drawn from a seed: the generator, exactly, and what it does for the codec."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.strategies import random_delta, specs_of
from wire.codec import decode_delta, encode_delta
from wire.codec.drawn import draw
from wire.delta import RowBlock, Tensor, add, squared_norm
from wire.policy import CodecMode, CodecPolicy

DRAWN = (CodecMode.RANDOM_ENTRIES, CodecMode.RANDOM_ROWS)
MASK = (1 << 64) - 1


def drawn_in_words(seed: int, count: int, universe: int) -> list[int]:
    """The rule of the module's docstring, without numpy."""
    places = []
    for at in range(count):
        z = (seed + (at + 1) * 0x9E3779B97F4A7C15) & MASK
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & MASK
        z = (z ^ z >> 27) * 0x94D049BB133111EB & MASK
        z = z ^ z >> 31
        start, end = at * universe // count, (at + 1) * universe // count
        places.append(start + z % (end - start))
    return places


@given(st.integers(0, 2**32 - 1), st.integers(1, 200), st.integers(0, 10**9))
def test_any_language_draws_the_same(seed: int, count: int, beyond: int) -> None:
    places, lengths = draw(seed, count, count + beyond)
    assert places.tolist() == drawn_in_words(seed, count, count + beyond)
    assert (np.diff(places) > 0).all()
    assert lengths.sum() == count + beyond


def test_the_first_output_of_splitmix64() -> None:
    # The reference implementation, seeded with 0, begins with this number.
    assert draw(0, 1, 2**31)[0].tolist() == [0xE220A8397B1DCDAF % 2**31]


def test_every_place_is_drawn_equally_often() -> None:
    counts = np.zeros(103)
    for seed in range(4000):
        places, _ = draw(seed, 10, 103)
        counts[places] += 1
    assert abs(counts / 4000 - 10 / 103).max() < 0.025


@pytest.mark.parametrize("mode", DRAWN)
def test_only_drawn_places_arrive(mode: CodecMode) -> None:
    specs, delta = specs_of(200, 6), random_delta(5, 200, 6, 90)
    policy = CodecPolicy(mode=mode, bits=8, density=0.1)
    seen: dict[str, Tensor] = {}
    for seed in range(60):
        decoded = decode_delta(
            encode_delta(delta, specs, policy, np.random.default_rng(seed)), specs
        )
        block = decoded["item"]
        assert isinstance(block, RowBlock)
        entries = np.count_nonzero(block.values)
        assert entries <= (120 if mode is CodecMode.RANDOM_ENTRIES else 20 * 6)
        seen = add(seen, decoded)
    block, original = seen["item"], delta["item"]
    assert isinstance(block, RowBlock)
    assert isinstance(original, RowBlock)
    # Every row has its turn.
    assert np.isin(original.rows, block.rows).mean() > 0.9


@pytest.mark.parametrize("mode", DRAWN)
def test_all_places_drawn_is_the_whole_delta(mode: CodecMode) -> None:
    specs, delta = specs_of(40, 6), random_delta(5, 40, 6, 30)
    policy = CodecPolicy(mode=mode, bits=8, density=1.0)
    decoded = decode_delta(encode_delta(delta, specs, policy), specs)
    assert squared_norm(add(delta, decoded, -1.0)) < 0.01 * squared_norm(delta)


@pytest.mark.parametrize("mode", DRAWN)
def test_the_rows_that_are_named_depend_on_the_seed_alone(mode: CodecMode) -> None:
    specs = specs_of(200, 6)
    policy = CodecPolicy(mode=mode, bits=4, density=0.1)
    named = []
    for items in (60, 90, 200):
        delta = random_delta(items, 200, 6, items)
        payload = encode_delta(delta, specs, policy, np.random.default_rng(9))
        block = decode_delta(payload, specs)["item"]
        assert isinstance(block, RowBlock)
        named.append(block.rows.tolist())
    assert named[0] == named[1] == named[2]


@pytest.mark.parametrize("mode", DRAWN)
def test_rounded_at_random_an_untouched_entry_looks_like_any_other(mode: CodecMode) -> None:
    specs, delta = specs_of(200, 6), random_delta(1, 200, 6, 40)
    policy = CodecPolicy(mode=mode, bits=1, density=0.2, unbiased=True, residual_keep=0.0)
    payload = encode_delta(delta, specs, policy, np.random.default_rng(9))
    block = decode_delta(payload, specs)["item"]
    assert isinstance(block, RowBlock)
    drawn = block.values if mode is CodecMode.RANDOM_ROWS else block.values[block.values != 0]
    assert len(np.unique(np.abs(drawn))) == 1
    assert drawn.size == 240
