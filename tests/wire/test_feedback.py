"""Error feedback: nothing that was learned is lost, and nothing of it grows without bound."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.wire.strategies import policies, random_delta, specs_of
from wire.codec import decode_delta, encode_delta
from wire.delta import Delta, RowBlock, Tensor, add, squared_norm
from wire.feedback import compensate, leftover, share_left
from wire.policy import CodecMode, CodecPolicy

UNBOUNDED = 1e9
FORMS = [
    CodecPolicy(mode=CodecMode.TOP_K, bits=1, density=0.1),
    CodecPolicy(mode=CodecMode.TOP_K, bits=8, density=0.05),
    CodecPolicy(mode=CodecMode.ROWS, bits=2, density=0.2, row_scales=True),
    CodecPolicy(mode=CodecMode.LOW_RANK, bits=4, rank=1),
    CodecPolicy(mode=CodecMode.RANDOM_ENTRIES, bits=4, density=0.2),
    CodecPolicy(mode=CodecMode.RANDOM_ROWS, bits=4, density=0.2),
    CodecPolicy(mode=CodecMode.AUTO, nmse=0.3),
]


def rows_of(tensor: Tensor) -> RowBlock:
    assert isinstance(tensor, RowBlock)
    return tensor


def with_bound(policy: CodecPolicy, bound: float) -> CodecPolicy:
    return CodecPolicy(**{**policy.to_dict(), "residual_bound": bound})


class Sender:
    """A device's side of error feedback: everything but the clock that ages residuals."""

    def __init__(self, policy: CodecPolicy, catalogue: int, width: int) -> None:
        self.policy, self.specs = policy, specs_of(catalogue, width)
        self.residual: dict[str, Tensor] = {}
        self.learned: dict[str, Tensor] = {}
        self.sent: dict[str, Tensor] = {}
        self._rng = np.random.default_rng(1)

    def send(self, delta: Delta) -> dict[str, Tensor]:
        compensated = compensate(delta, self.residual, self.policy)
        payload = encode_delta(compensated, self.specs, self.policy, self._rng)
        decoded = decode_delta(payload, self.specs)
        self.residual = leftover(self.residual, compensated, decoded)
        self.learned, self.sent = add(self.learned, delta), add(self.sent, decoded)
        return decoded


@given(st.integers(0, 2**32 - 1), policies(), st.integers(1, 12))
@settings(max_examples=60)
def test_what_was_sent_and_what_was_left_out_is_what_was_learned(
    seed: int, policy: CodecPolicy, rounds: int
) -> None:
    sender = Sender(with_bound(policy, UNBOUNDED), 50, 6)
    for at in range(rounds):
        sender.send(random_delta(seed + at, 50, 6, 20))
    lost = squared_norm(add(add(sender.sent, sender.residual), sender.learned, -1.0))
    scale = squared_norm(sender.learned) + squared_norm(sender.residual)
    assert lost <= 1e-9 * scale


@pytest.mark.parametrize("policy", FORMS, ids=lambda policy: f"{policy.mode}-{policy.bits}")
def test_a_repeated_delta_arrives_in_full(policy: CodecPolicy) -> None:
    sender, delta = Sender(with_bound(policy, UNBOUNDED), 60, 8), random_delta(7, 60, 8, 30)
    rounds = 400
    for _ in range(rounds):
        sender.send(delta)
    missing = add(delta, sender.sent, -1.0 / rounds)
    assert squared_norm(missing) < 0.02 * squared_norm(delta)


def test_a_residual_row_waits_until_it_is_touched_again() -> None:
    residual = {"item": RowBlock(np.array([2, 5]), np.ones((2, 2), np.float32))}
    delta = {"item": RowBlock(np.array([5, 7]), np.ones((2, 2), np.float32))}
    compensated = compensate(delta, residual, CodecPolicy())
    assert rows_of(compensated["item"]).rows.tolist() == [5, 7]
    assert rows_of(compensated["item"]).values[:, 0].tolist() == [2, 1]
    after = rows_of(leftover(residual, compensated, compensated)["item"])
    assert after.at(np.array([2, 5, 7]))[:, 0].tolist() == [1, 0, 0]


@given(st.floats(0.1, 100.0), st.floats(0.0, 1e6))
def test_a_residual_never_adds_more_than_its_bound(bound: float, size: float) -> None:
    policy = CodecPolicy(residual_bound=bound)
    delta = random_delta(3, 30, 4, 12)
    residual: dict[str, Tensor] = {
        "item": RowBlock(np.arange(30), np.full((30, 4), size, np.float32)),
        "head": np.full((3, 4), -size, np.float32),
    }
    added = add(compensate(delta, residual, policy), delta, -1.0)
    lengths = np.linalg.norm(rows_of(added["item"]).values.astype(np.float64), axis=1)
    values = rows_of(delta["item"]).values
    usual = np.sqrt(np.square(values, dtype=np.float64).sum() / len(values))
    rounding = 1e-6 * (np.abs(values).max() + usual)
    assert lengths.max() <= bound * usual * 1.0001 + rounding
    assert squared_norm({"": added["head"]}) <= (
        (bound * 1.0001) ** 2 * squared_norm({"": delta["head"]}) + 1e-9
    )


def test_a_small_residual_is_added_as_it_is() -> None:
    delta = random_delta(3, 30, 4, 12)
    residual = random_delta(3, 30, 4, 12)
    doubled = compensate(delta, residual, CodecPolicy(residual_bound=10.0))
    assert squared_norm(add(doubled, add(delta, delta), -1.0)) == 0.0


def test_a_dense_residual_survives_an_update_that_learned_nothing_of_it() -> None:
    residual = {"head": np.ones((3, 4), np.float32)}
    delta = {"head": np.zeros((3, 4), np.float32)}
    assert squared_norm(compensate(delta, residual, CodecPolicy())) == 12.0


def test_updates_that_are_refused_and_taken_back_do_not_grow_for_ever() -> None:
    sender, delta = Sender(CodecPolicy(residual_bound=4.0), 60, 8), random_delta(7, 60, 8, 30)
    sizes = []
    for _ in range(60):
        decoded = sender.send(delta)
        sizes.append(squared_norm(decoded))
        sender.residual = add(sender.residual, decoded)
    # The delta once, and a residual of at most the bound times it.
    assert max(sizes) <= 1.1 * (1 + 4.0) ** 2 * squared_norm(delta)
    assert max(sizes[40:]) <= 1.1 * max(sizes[:40])


def test_a_residual_ages_with_each_update_and_is_dropped_at_last() -> None:
    policy = CodecPolicy(residual_keep=0.5, residual_updates=3)
    shares = share_left(np.array([0, 1, 2, 3, 4, 1000]), policy)
    assert shares.tolist() == [1.0, 0.5, 0.25, 0.125, 0.0, 0.0]
    assert share_left(np.array([1]), CodecPolicy(residual_keep=0.0)).tolist() == [0.0]
    assert share_left(np.array([7]), CodecPolicy(residual_keep=1.0)).tolist() == [1.0]
