"""The attack study on a small scale: with real training, attackers harm and a defence helps."""

from functools import cache

import numpy as np
import pytest

from device_sims.bench.attacks import ATTACKS, DEFENCES, Outcome, Promotion, measure, promoted_item
from device_sims.bench.deltas import Moment
from device_sims.datasets import Interactions, synthesise
from wire.delta import RowBlock

PASSES = 4


@cache
def interactions() -> Interactions:
    return synthesise(users=60, items=80, mean_interactions=20)


def outcome(attack: str, defence: str) -> Outcome:
    return measure(interactions(), ATTACKS[attack], DEFENCES[defence], passes=PASSES)


def test_a_fifth_that_scales_its_updates_is_kept_from_ruining_the_model() -> None:
    open_to_all, defended = outcome("x100", "none"), outcome("x100", "norm+clip")
    assert defended.hr_at_10 > open_to_all.hr_at_10 + 0.05
    assert defended.refused_hostile > 0.5
    assert defended.refused_honest < 0.05
    assert open_to_all.refused_hostile == 0.0


def test_an_item_that_a_twentieth_promotes_is_kept_from_most_users() -> None:
    open_to_all, defended = outcome("promote-5", "none"), outcome("promote-5", "trim")
    assert open_to_all.er_at_10 > 0.5
    assert defended.er_at_10 < 0.1
    assert defended.hr_at_10 > 0.8 * open_to_all.hr_at_10


def moment() -> Moment:
    table = np.eye(4, 2, dtype=np.float32)
    own = RowBlock(np.array([1, 3]), np.array([[0.3, 0.4], [0.0, 0.1]], np.float32))
    return Moment(
        user=0,
        version=0,
        federated={"item": table},
        private={"user": np.array([0.0, 5.0], np.float32)},
        delta={"item": own},
    )


@pytest.mark.parametrize(
    ("attack", "length"),
    # Row 2 of the table is zero and is to be [0, 2]: twice the longest row, five times over;
    # quietly no further than the own longest row, 0.5.
    [("promote-1", 10.0), ("quiet-5", 0.5)],
)
def test_promoters_push_one_row_along_the_mean_user(attack: str, length: float) -> None:
    sent = Promotion(ATTACKS[attack], 2)(moment())["item"]
    assert isinstance(sent, RowBlock)
    assert sent.rows.tolist() == [1, 2, 3]
    np.testing.assert_allclose(sent.values[1], [0.0, length], rtol=1e-6)
    np.testing.assert_allclose(sent.values[0], [0.3, 0.4], rtol=1e-6)


def test_the_promoted_item_is_one_that_few_users_know() -> None:
    known_by = np.bincount(interactions().items, minlength=interactions().item_count)
    assert known_by[promoted_item(interactions())] <= 6
