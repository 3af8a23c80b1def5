"""What the parts of a buffer weigh, by kind."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given

from aggregator.merging import Contribution, Kind, Rule, StalenessScope, Weighting
from aggregator.merging.part import Part, fresh_weights
from aggregator.merging.pipeline import weigh
from tests.aggregator.merging.fleet import Ledger, batches, contribution, random_batch, seeds, state
from wire.delta import RowBlock


def total(parts: Sequence[Part]) -> float:
    return sum(part.fresh for part in parts)


@given(batch=batches())
def test_fresh_weights_sum_to_the_updates_or_their_examples(batch: list[Contribution]) -> None:
    examples = sum(c.examples for c in batch)
    for kind in (Kind.FEDBUFF, Kind.FADAS):
        assert total(weigh(state(5), batch, Rule(kind=kind))) == len(batch)
        rule = Rule(kind=kind, weighting=Weighting.EXAMPLES)
        assert total(weigh(state(5), batch, rule)) == examples
    assert total(weigh(state(5), batch, Rule(kind=Kind.CA2FL))) == len(batch)
    cohort = [c for c in batch if c.base_version == 5]
    assert total(weigh(state(5), batch, Rule(kind=Kind.FEDAVG))) == len(cohort)


@given(batch=batches())
def test_only_fedasync_and_fedbuff_weigh_staleness_and_never_above_fresh(
    batch: list[Contribution],
) -> None:
    for kind in (Kind.FEDAVG, Kind.FADAS, Kind.CA2FL):
        assert all(part.weight == part.fresh for part in weigh(state(5), batch, Rule(kind=kind)))
    stale = weigh(state(5), batch, Rule())
    for part, c in zip(stale, batch, strict=True):
        assert part.weight == pytest.approx(part.fresh * (1 + 5 - c.base_version) ** -0.5)


@given(rng=seeds)
def test_a_row_weighs_between_a_stale_and_a_fresh_update(rng: np.random.Generator) -> None:
    rule = Rule(staleness_scope=StalenessScope.ROW)
    ledger = Ledger(state(), rule)
    for version in range(4):
        ledger.merge(random_batch(rng, version))
    batch = random_batch(rng, 4)
    for part, c in zip(weigh(ledger.state, batch, rule), batch, strict=True):
        block, weights = c.delta["item"], part.row_weights["item"]
        assert isinstance(block, RowBlock)
        assert weights.shape == block.rows.shape
        assert (part.weight <= weights).all()
        assert (weights <= part.fresh).all()


@given(batch=batches(), rng=seeds)
def test_participation_weighs_at_most_its_limit_more(
    batch: list[Contribution], rng: np.random.Generator
) -> None:
    rule = Rule(participation_exponent=1.0, participation_limit=3.0)
    counted = [
        contribution(c.id, {0: [0.0, 0.0]}, device_updates=int(rng.integers(0, 1000)))
        for c in batch
    ]
    weights = fresh_weights(counted, rule)
    assert weights.min() == 1.0
    assert weights.max() <= 3.0
