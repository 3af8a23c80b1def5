"""What every rule promises, with every optimizer."""

import json
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save

from aggregator.merging import (
    Contribution,
    Kind,
    Optimizer,
    RowCorrection,
    Rule,
    ServerState,
    Staleness,
    Weighting,
    advance,
    apply,
    combine,
    merge,
)
from tests.aggregator.merging.fleet import (
    ITEMS,
    WAYS,
    Ledger,
    assert_same_bits,
    batches,
    contribution,
    fedavg,
    portion,
    random_batch,
    rules,
    seeds,
    state,
    touched,
)

every_way = pytest.mark.parametrize(("kind", "optimizer"), WAYS)
few = settings(max_examples=10)


@st.composite
def ledgers(draw: st.DrawFn, kind: Kind, optimizer: Optimizer) -> Ledger:
    """A ledger some merges on."""
    rule, rng = draw(rules(kind, optimizer)), draw(seeds)
    ledger = Ledger(state(), rule)
    for version in range(draw(st.integers(0, 4))):
        ledger.merge(portion(random_batch(rng, version), rule))
    return ledger


def next_batch(ledger: Ledger, rng: np.random.Generator) -> list[Contribution]:
    return ledger.annotate(portion(random_batch(rng, ledger.state.version), ledger.rule))


def copied(before: ServerState) -> ServerState:
    return ServerState(
        before.version,
        {name: array.copy() for name, array in before.parameters.items()},
        {name: array.copy() for name, array in before.memory.items()},
    )


def slots(memory: Mapping[str, object]) -> set[str]:
    return {name.partition("/")[0] for name in memory}


@every_way
@few
@given(data=st.data(), rng=seeds)
def test_order_inside_a_buffer_does_not_change_a_bit(
    kind: Kind, optimizer: Optimizer, data: st.DataObject, rng: np.random.Generator
) -> None:
    ledger = data.draw(ledgers(kind, optimizer))
    batch = next_batch(ledger, rng)
    shuffled = [batch[i] for i in rng.permutation(len(batch))]
    left, right = (merge(ledger.state, b, ledger.rule) for b in (batch, shuffled))
    assert_same_bits(left, right)


@every_way
@few
@given(data=st.data(), rng=seeds)
def test_a_row_nobody_touched_stays_bit_for_bit_and_so_do_its_moments(
    kind: Kind, optimizer: Optimizer, data: st.DataObject, rng: np.random.Generator
) -> None:
    ledger = data.draw(ledgers(kind, optimizer))
    before, batch = ledger.state, next_batch(ledger, rng)
    after = merge(before, batch, ledger.rule)
    others = sorted(set(range(ITEMS)) - touched(batch))
    assert np.array_equal(after.parameters["item"][others], before.parameters["item"][others])
    for name, array in before.memory.items():
        if name.endswith("/item") and not name.startswith("cached/"):
            assert np.array_equal(after.memory[name][others], array[others]), name


@every_way
@few
@given(data=st.data(), rng=seeds)
def test_writing_in_place_gives_the_same_bits_as_copying(
    kind: Kind, optimizer: Optimizer, data: st.DataObject, rng: np.random.Generator
) -> None:
    ledger = data.draw(ledgers(kind, optimizer))
    before, owned = ledger.state, copied(ledger.state)
    step = combine(before, next_batch(ledger, rng), ledger.rule)
    after = apply(before, step)
    assert_same_bits(before, owned)
    advanced = advance(owned, step)
    assert_same_bits(advanced, after)
    assert all(advanced.parameters[name] is owned.parameters[name] for name in owned.parameters)


@every_way
@few
@given(data=st.data(), rng=seeds)
def test_a_fold_resumed_from_a_snapshot_and_a_stored_rule_gives_the_same_bits(
    kind: Kind, optimizer: Optimizer, data: st.DataObject, rng: np.random.Generator
) -> None:
    ledger = data.draw(ledgers(kind, optimizer))
    before = ledger.state
    files = [load(save(dict(arrays))) for arrays in (before.parameters, before.memory)]
    read = ServerState(before.version, *files)
    rule = Rule.from_dict(json.loads(json.dumps(ledger.rule.to_dict())))
    batch = next_batch(ledger, rng)
    after = merge(before, batch, ledger.rule)
    assert_same_bits(merge(read, batch, rule), after)
    for array in after.parameters.values():
        assert array.dtype == np.float32
        assert np.isfinite(array).all()


@every_way
@few
@given(data=st.data(), rng=seeds)
def test_a_step_names_touched_rows_only_whatever_the_size_of_the_table(
    kind: Kind, optimizer: Optimizer, data: st.DataObject, rng: np.random.Generator
) -> None:
    rule = data.draw(rules(kind, optimizer))
    batch = portion(random_batch(rng, 0), rule)
    step = combine(state(items=10_000), batch, rule)
    for changes in (step.parameters, step.memory):
        for name, change in changes.items():
            if name.endswith("item"):
                assert change.rows is not None
                assert set(change.rows.tolist()) <= touched(batch)
                assert len(change.values) == len(change.rows)
                assert change.shape[0] == 10_000


@every_way
@few
@given(data=st.data(), rng=seeds)
def test_a_rule_drops_the_memory_of_another_and_starts_its_own(
    kind: Kind, optimizer: Optimizer, data: st.DataObject, rng: np.random.Generator
) -> None:
    ledger = data.draw(ledgers(kind, optimizer))
    before = ledger.state
    new = data.draw(st.sampled_from(WAYS).flatmap(lambda way: rules(*way)))
    batch = ledger.annotate(portion(random_batch(rng, before.version, stale=False), new))
    fresh = merge(ServerState(before.version, before.parameters), batch, new)
    after = merge(before, batch, new)
    assert slots(after.memory) == slots(fresh.memory)
    if not slots(before.memory) & slots(fresh.memory):
        assert_same_bits(after, fresh)


@every_way
def test_an_empty_batch_makes_an_equal_version(kind: Kind, optimizer: Optimizer) -> None:
    rule = Rule(kind=kind, optimizer=optimizer)
    after = merge(state(4), [], rule)
    assert after.version == 5
    assert np.array_equal(after.parameters["item"], state().parameters["item"])


@pytest.mark.parametrize("kind", list(Kind))
def test_an_update_from_a_later_version_is_refused(kind: Kind) -> None:
    with pytest.raises(ValueError, match="later version"):
        merge(state(1), [contribution(1, {0: [1.0, 1.0]}, base=2)], Rule(kind=kind))


PROMISE_FEDAVG = [
    Rule(kind=kind, optimizer=Optimizer.SGD, weighting=weighting)
    for kind in Kind
    for weighting in Weighting
    if weighting is Weighting.UNIFORM or kind not in (Kind.FEDASYNC, Kind.CA2FL)
] + [
    Rule(optimizer=Optimizer.MOMENTUM),
    Rule(staleness=Staleness.HINGE),
    Rule(staleness=Staleness.CONSTANT),
]


@pytest.mark.parametrize("rule", PROMISE_FEDAVG, ids=lambda rule: f"{rule.kind}-{rule.weighting}")
@given(batch=batches(stale=False))
def test_zero_staleness_and_a_full_buffer_equal_fedavg(
    rule: Rule, batch: list[Contribution]
) -> None:
    """Promised where the server takes the mean as it is, and devices count alike.

    Not by a row correction, which is there to differ; not by a participation exponent, unless the
    devices sent equally many; by momentum and ca2fl while they remember nothing; not by the
    adaptive optimizers, whose step has a length of its own.
    """
    full = portion(batch, rule)
    expected = fedavg(state(5), full, examples=rule.weighting is Weighting.EXAMPLES)
    after = merge(state(5), full, rule)
    for name in expected.parameters:
        np.testing.assert_allclose(after.parameters[name], expected.parameters[name], atol=1e-6)


@given(batch=batches(stale=False), rate=st.floats(0.1, 2), factor=st.floats(0.25, 4))
@pytest.mark.parametrize("correction", list(RowCorrection))
def test_the_step_scales_with_the_server_learning_rate(
    correction: RowCorrection, batch: list[Contribution], rate: float, factor: float
) -> None:
    rule = Rule(row_correction=correction, server_learning_rate=rate)
    scaled = rule.changed({"server_learning_rate": rate * factor})
    zero = ServerState(5, {k: np.zeros_like(v) for k, v in state().parameters.items()})
    one, many = merge(zero, batch, rule), merge(zero, batch, scaled)
    for name in zero.parameters:
        np.testing.assert_allclose(
            many.parameters[name], one.parameters[name] * factor, rtol=1e-5, atol=1e-6
        )


def test_a_step_fits_the_version_that_it_was_computed_from() -> None:
    step = combine(state(1), [contribution(1, {0: [1.0, 1.0]})], Rule())
    for make in (apply, advance):
        with pytest.raises(ValueError, match="version 1, not 2"):
            make(state(2), step)


def test_rows_and_dense_deltas_of_one_parameter_are_refused() -> None:
    odd = Contribution(2, 0, 1, {"item": np.zeros((ITEMS, 2), np.float32)})
    with pytest.raises(ValueError, match="both rows and dense"):
        merge(state(), [contribution(1, {0: [1.0, 1.0]}), odd], Rule())


@pytest.mark.parametrize("optimizer", list(Optimizer))
@pytest.mark.parametrize("kind", [Kind.FEDAVG, Kind.FEDBUFF, Kind.FADAS])
def test_updates_that_weigh_nothing_touch_nothing(kind: Kind, optimizer: Optimizer) -> None:
    rule = Rule(kind=kind, optimizer=optimizer, weighting=Weighting.EXAMPLES)
    after = merge(state(), [contribution(1, {0: [1.0, 1.0]}, examples=0)], rule)
    assert np.array_equal(after.parameters["item"], state().parameters["item"])
