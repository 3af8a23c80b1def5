"""What hostile devices send."""

from dataclasses import replace

import numpy as np
import pytest

from device_sims.bench.attacks import ATTACKS
from device_sims.scenario import Attack, Attackers, ScenarioError
from device_sims.simulation.attackers import (
    Moment,
    forge_of,
    hostile,
    promoted_item,
    sparsest_item,
)
from device_sims.simulation.workshop import Workshop
from tests.device_sims.simulation.test_simulation import CALM
from tests.device_sims.simulation.test_training import TASKS, scenario
from wire.delta import Delta, RowBlock

OWN = np.array([[0.3, 0.4], [0.0, 0.1]], np.float32)


def moment(user: int = 0, vector: tuple[float, float] = (0.0, 5.0)) -> Moment:
    return Moment(
        user=user,
        version=0,
        federated={"item": np.eye(4, 2, dtype=np.float32)},
        private={"user": np.array(vector, np.float32)},
        delta={"item": RowBlock(np.array([1, 3]), OWN)},
    )


def forged(attackers: Attackers, *moments: Moment, seed: int = 0) -> list[RowBlock]:
    forge = forge_of(attackers, 2, np.random.default_rng(seed))
    return [block(forge(one)) for one in moments]


def block(delta: Delta) -> RowBlock:
    found = delta["item"]
    assert isinstance(found, RowBlock)
    return found


def test_flippers_send_the_opposite_and_scalers_a_multiple() -> None:
    (flipped,) = forged(Attackers(kind=Attack.SIGN_FLIP, factor=7.0), moment())
    (scaled,) = forged(Attackers(kind=Attack.SCALE, factor=7.0), moment())
    np.testing.assert_array_equal(flipped.values, -OWN)
    np.testing.assert_array_equal(scaled.values, np.float32(7.0) * OWN)
    assert flipped.rows.tolist() == scaled.rows.tolist() == [1, 3]


def test_noise_is_as_large_as_it_says() -> None:
    attackers = Attackers(kind=Attack.NOISE, factor=3.0)
    found = forged(attackers, *(moment() for _ in range(2_000)))
    noise = np.stack([one.values for one in found]) - OWN
    assert noise.std() == pytest.approx(3.0 * np.abs(OWN).mean(), rel=0.03)
    assert abs(noise.mean()) < 0.02


@pytest.mark.parametrize(
    ("attackers", "length"),
    # Row 2 of the table is zero and is to be [0, 2]: twice the longest row, five times over;
    # quietly no further than the own longest row, 0.5.
    [(ATTACKS["promote-1"], 10.0), (ATTACKS["quiet-5"], 0.5)],
)
def test_promoters_push_one_row_along_the_user(attackers: Attackers, length: float) -> None:
    (sent,) = forged(attackers, moment())
    assert sent.rows.tolist() == [1, 2, 3]
    np.testing.assert_allclose(sent.values[1], [0.0, length], rtol=1e-6)
    np.testing.assert_allclose(sent.values[0], OWN[0], rtol=1e-6)


def test_colluders_share_their_vectors_and_promoters_do_not() -> None:
    both = moment(0, (0.0, 5.0)), moment(1, (5.0, 0.0))
    together = forged(Attackers(kind=Attack.COLLUDE, factor=1.0), *both)[1].values[1]
    alone = forged(Attackers(kind=Attack.PROMOTE, factor=1.0), *both)[1].values[1]
    np.testing.assert_allclose(together, [2**0.5, 2**0.5], rtol=1e-6)
    np.testing.assert_allclose(alone, [2.0, 0.0], atol=1e-6)


def test_as_many_are_hostile_as_the_share_says() -> None:
    assert hostile(Attackers(), 100) == frozenset()
    some = hostile(Attackers(share=0.2), 101)
    assert len(some) == 21
    assert some != hostile(Attackers(share=0.2, seed=1), 101)
    assert hostile(Attackers(share=1.0), 5) == frozenset(range(5))


def test_the_promoted_item_is_one_that_few_users_know_or_the_one_that_is_named(
    workshop: Workshop,
) -> None:
    made = workshop.prepare(CALM)
    bundle, split = made.bundle, made.split
    items = np.concatenate([split.train.items, split.validation, split.test])
    item = promoted_item(Attackers(kind=Attack.PROMOTE), split, bundle.manifest)
    assert item == sparsest_item(items, split.item_count)
    assert 1 <= np.bincount(items)[item] <= 6
    assert promoted_item(Attackers(kind=Attack.COLLUDE, item=7), split, bundle.manifest) == 7
    assert promoted_item(Attackers(kind=Attack.SCALE), split, bundle.manifest) is None
    with pytest.raises(ScenarioError, match=r"attackers\.item is 5000; expected -1 to"):
        promoted_item(Attackers(kind=Attack.PROMOTE, item=5_000), split, bundle.manifest)


def test_promotion_is_refused_for_a_model_without_a_row_that_points_at_users(
    workshop: Workshop,
) -> None:
    neumf = scenario(TASKS["neumf, momentum"])
    promoting = replace(neumf, attackers=Attackers(kind=Attack.PROMOTE))
    with pytest.raises(ScenarioError, match=r"attackers\.kind is 'promote'; expected sign-flip"):
        workshop.run(promoting)
