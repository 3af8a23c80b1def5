"""The attack study on a small scale: with real training, attackers harm and a defence helps."""

from functools import cache

from device_sims.bench.attacks import ATTACKS, DEFENCES, Outcome, measure
from device_sims.datasets import Interactions, synthesise

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
