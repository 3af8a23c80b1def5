"""Sampling: fairness, coverage, and the local table."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.sampling import (
    MAX_SAMPLES,
    IntArray,
    LocalBatches,
    absent_items,
    draw_batches,
    draw_negatives,
)
from wire.manifest import BatchKind
from wire.policy import TrainingPolicy


def policy(**changes: int) -> TrainingPolicy:
    return TrainingPolicy.from_dict({"epochs": 1, "batch_size": 8, "negatives": 4, **changes})


def item_ids(batches: LocalBatches, name: str = "item") -> IntArray:
    """Catalogue ids of the samples that count."""
    real = batches.inputs["weight"].ravel() > 0  # type: ignore[operator]
    positions: IntArray = batches.inputs[name].ravel()[real].astype(np.int64)
    return batches.rows[positions]


@given(st.integers(1, 60), st.data())
def test_absent_items_are_all_those_not_present(catalogue: int, data: st.DataObject) -> None:
    present = np.array(sorted(data.draw(st.sets(st.integers(0, catalogue - 1)))), np.int64)
    every = absent_items(present, np.arange(catalogue - len(present)))
    assert every.tolist() == [item for item in range(catalogue) if item not in present]


def test_negatives_are_uniform_over_what_is_not_trained_on() -> None:
    training = np.array([0, 3, 4, 9], np.int64)
    drawn = draw_negatives(training, 10, 60_000, np.random.default_rng(0))
    counts = np.bincount(drawn, minlength=10)
    assert not counts[training].any()
    others = np.delete(counts, training)
    assert np.abs(others - 10_000).max() < 400


@pytest.mark.parametrize("kind", BatchKind)
def test_the_held_out_item_can_be_a_negative(kind: BatchKind) -> None:
    """The protocol's trap: an item that is never a negative is never pushed down."""
    training, held_out = np.array([1, 2, 3], np.int64), 7
    batches = draw_batches(kind, training, 10, policy(epochs=20), np.random.default_rng(0))
    name = "item" if kind is BatchKind.POINTWISE else "negative"
    assert held_out in item_ids(batches, name)


@given(
    st.sampled_from(BatchKind),
    st.lists(st.integers(0, 39), min_size=1, max_size=30),
    st.integers(1, 3),
    st.integers(1, 17),
    st.integers(0, 5),
    st.integers(0, 2**32 - 1),
)
def test_every_positive_is_there_and_padding_weighs_nothing(
    kind: BatchKind, history: list[int], epochs: int, batch_size: int, negatives: int, seed: int
) -> None:
    positives = np.array(history, np.int64)
    chosen = policy(epochs=epochs, batch_size=batch_size, negatives=negatives)
    batches = draw_batches(kind, positives, 40, chosen, np.random.default_rng(seed))
    shapes = {column.shape for column in batches.inputs.values()}
    ((steps, width),) = shapes
    pairs = len(history) * epochs * negatives
    pointwise = kind is BatchKind.POINTWISE
    assert batches.samples == (pairs + len(history) * epochs if pointwise else pairs)
    assert width == batch_size
    assert steps == -(-batches.samples // batch_size)
    weight = batches.inputs["weight"]
    assert weight.sum() == batches.samples
    assert weight.dtype == np.float32
    if pointwise:
        real = weight.ravel() > 0  # type: ignore[operator]
        label = batches.inputs["label"].ravel()[real]
        ids = item_ids(batches)
        assert sorted(ids[label == 1]) == sorted(history * epochs)
        assert not np.isin(ids[label == 0], positives).any()
    elif negatives:
        assert sorted(item_ids(batches, "positive")) == sorted(history * epochs * negatives)
        assert not np.isin(item_ids(batches, "negative"), positives).any()


def test_local_table_is_the_sorted_set_of_what_occurs() -> None:
    batches = draw_batches(
        BatchKind.POINTWISE, np.array([50, 7], np.int64), 100, policy(), np.random.default_rng(1)
    )
    assert (np.diff(batches.rows) > 0).all()
    assert set(batches.rows) == set(item_ids(batches))
    assert batches.inputs["item"].dtype == np.int64


def test_each_epoch_sees_every_positive_once_in_an_order_of_its_own() -> None:
    positives = np.arange(30)
    batches = draw_batches(
        BatchKind.POINTWISE,
        positives,
        31,
        policy(epochs=2, batch_size=30, negatives=0),
        np.random.default_rng(0),
    )
    first, second = batches.rows[batches.inputs["item"].astype(int)]
    assert sorted(first) == sorted(second) == positives.tolist()
    assert first.tolist() != second.tolist()


@pytest.mark.parametrize("kind", BatchKind)
def test_empty_history_and_full_catalogue_are_defined(kind: BatchKind) -> None:
    rng = np.random.default_rng(0)
    empty = draw_batches(kind, np.zeros(0, np.int64), 10, policy(), rng)
    assert empty.samples == 0
    assert len(empty.rows) == 0
    full = draw_batches(kind, np.arange(10), 10, policy(), rng)
    assert full.samples == (10 if kind is BatchKind.POINTWISE else 0)


def test_same_seed_same_batches() -> None:
    def draw() -> LocalBatches:
        rng = np.random.default_rng(5)
        return draw_batches(BatchKind.PAIRWISE, np.arange(9), 50, policy(), rng)

    np.testing.assert_equal(dict(draw().inputs), dict(draw().inputs))


@pytest.mark.parametrize("kind", BatchKind)
@pytest.mark.parametrize(("history", "epochs"), [(20, 100), (5_000, 100)])
def test_the_samples_of_an_update_are_bounded(kind: BatchKind, history: int, epochs: int) -> None:
    wanted = policy(epochs=epochs, negatives=1_000, batch_size=64)
    drawn = draw_batches(kind, np.arange(history), 9_000, wanted, np.random.default_rng(0))
    assert MAX_SAMPLES * 0.9 < drawn.samples <= MAX_SAMPLES
    assert all(column.size < MAX_SAMPLES + 64 for column in drawn.inputs.values())
    assert len(drawn.rows) <= 9_000
    each = drawn.samples // drawn.examples
    assert drawn.examples == min(history, MAX_SAMPLES // (each if history > 20 else 1))
