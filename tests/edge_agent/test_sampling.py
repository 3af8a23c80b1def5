"""Sampling: fairness, coverage, windows, the local table, and what bounds it all."""

import math
import tracemalloc
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from typing import cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.errors import TrainingError
from edge_agent.history import History, IntArray
from edge_agent.sampling import (
    MAX_BYTES,
    LocalBatches,
    absent_items,
    draw_batches,
    draw_negatives,
)
from wire.manifest import BatchKind, Capacity, ContextField, Manifest
from wire.policy import CodecPolicy, TrainingPolicy

LABELLED_OR_PAIRED = (BatchKind.POINTWISE, BatchKind.PAIRWISE)


def policy(**changes: int) -> TrainingPolicy:
    return TrainingPolicy.from_dict({"epochs": 1, "batch_size": 8, "negatives": 4, **changes})


def manifest(kind: BatchKind, items: int, *, window: int = 0, fields: int = 0) -> Manifest:
    """A sequence task has a window of at least 3."""
    sequence = kind is BatchKind.SEQUENCE
    return Manifest(
        name="sampled",
        recommender="any",
        items=items,
        batch=kind,
        context=tuple(ContextField(f"field{n}", 1_000) for n in range(fields)),
        history=window or 3 * sequence,
        parameters=(),
        programs={},
        initial="",
        private="",
        frozen="",
        files=(),
        training=policy(),
        codec=CodecPolicy(),
    )


def history_of(items: Sequence[int] | IntArray, fields: int = 0) -> History:
    """The first context field tells the interactions apart: their numbers, from 0."""
    context = np.arange(len(items))[:, None] * np.arange(1, fields + 1)
    return History(np.array(items, np.int64), context.astype(np.int64))


def item_ids(batches: LocalBatches, name: str) -> IntArray:
    """Catalogue ids of the samples, and of their positions, that count."""
    real = batches.inputs["weight"] > 0  # type: ignore[operator]
    if batches.inputs[name].ndim == 3:
        real = real[..., None] & (batches.inputs["present"] > 0)  # type: ignore[operator]
    return cast(IntArray, batches.rows[batches.inputs[name][real]])


def negatives_of(kind: BatchKind, batches: LocalBatches) -> IntArray:
    if kind is not BatchKind.POINTWISE:
        return item_ids(batches, "negative")
    label = batches.inputs["label"][batches.inputs["weight"] > 0]  # type: ignore[operator]
    return cast(IntArray, item_ids(batches, "item")[label == 0])


def even_batches(samples: int, batch_size: int) -> tuple[int, int]:
    """As few steps as can be, and then as few samples a step as can be."""
    if not samples:
        return 0, 0
    steps = math.ceil(samples / batch_size)
    return steps, math.ceil(samples / steps)


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
    training, held_out = history_of([1, 2, 3]), 7
    batches = draw_batches(
        manifest(kind, 10), training, policy(epochs=40), np.random.default_rng(0)
    )
    assert held_out in negatives_of(kind, batches)


@given(
    st.sampled_from(LABELLED_OR_PAIRED),
    st.lists(st.integers(0, 39), min_size=1, max_size=30),
    st.integers(0, 4),
    st.integers(1, 3),
    st.integers(1, 17),
    st.integers(0, 5),
    st.integers(0, 2**32 - 1),
)
def test_every_positive_is_there_in_its_surroundings_and_padding_weighs_nothing(
    kind: BatchKind,
    items: list[int],
    window: int,
    epochs: int,
    batch_size: int,
    negatives: int,
    seed: int,
) -> None:
    task = manifest(kind, 40, window=window, fields=2)
    chosen = policy(epochs=epochs, batch_size=batch_size, negatives=negatives)
    batches = draw_batches(task, history_of(items, 2), chosen, np.random.default_rng(seed))
    pointwise = kind is BatchKind.POINTWISE
    each = epochs * (negatives + pointwise)
    assert batches.samples == len(items) * each
    assert batches.examples == len(items)
    shape = even_batches(batches.samples, batch_size)
    assert all(column.shape[:2] == shape for column in batches.inputs.values())
    weight = batches.inputs["weight"]
    assert weight.sum() == batches.samples
    assert weight.dtype == np.float32
    assert not np.isin(negatives_of(kind, batches), items).any()
    real = weight > 0  # type: ignore[operator]
    number = batches.inputs["context"][real][:, 0]
    assert sorted(number) == sorted(list(range(len(items))) * each)
    np.testing.assert_array_equal(batches.inputs["context"][real][:, 1], 2 * number)
    positive = item_ids(batches, "item" if pointwise else "positive")
    if pointwise:
        label = batches.inputs["label"][real]
        assert Counter(number[label == 1]) == Counter(list(range(len(items))) * epochs)
        number, positive = number[label == 1], positive[label == 1]
    assert positive.tolist() == [items[n] for n in number]
    if window:
        seen = batches.rows[batches.inputs["history"][real]]
        for n, row, present in zip(
            batches.inputs["context"][real][:, 0],
            seen,
            batches.inputs["present"][real],
            strict=True,
        ):
            before = items[max(0, n - window) : n]
            assert present.tolist() == [0.0] * (window - len(before)) + [1.0] * len(before)
            assert row[window - len(before) :].tolist() == before


@given(
    st.lists(st.integers(0, 39), min_size=0, max_size=30),
    st.integers(1, 9),
    st.integers(1, 3),
    st.integers(1, 5),
    st.integers(0, 2**32 - 1),
)
def test_windows_predict_every_action_but_the_first_once_an_epoch(
    items: list[int], window: int, epochs: int, batch_size: int, seed: int
) -> None:
    task = manifest(BatchKind.SEQUENCE, 40, window=window)
    chosen = policy(epochs=epochs, batch_size=batch_size)
    batches = draw_batches(task, history_of(items), chosen, np.random.default_rng(seed))
    expected = Counter[tuple[tuple[int, int], ...]]()
    for newest in range(len(items) - 1, 0, -window):
        oldest = max(1, newest - window + 1)
        expected[tuple((items[n - 1], items[n]) for n in range(oldest, newest + 1))] += epochs
    found = Counter[tuple[tuple[int, int], ...]]()
    inputs = batches.inputs
    for step, sample in zip(*np.nonzero(inputs["weight"]), strict=True):
        present = inputs["present"][step, sample]
        assert present.tolist() == sorted(present)
        for name in ("history", "positive", "negative"):
            assert not inputs[name][step, sample][present == 0].any()
        kept = [
            batches.rows[inputs[n][step, sample][present == 1]] for n in ("history", "positive")
        ]
        found[tuple(zip(*(ids.tolist() for ids in kept), strict=True))] += 1
    assert found == expected
    assert batches.samples == found.total()
    assert batches.examples == max(0, len(items) - 1)
    shape = (*even_batches(batches.samples, batch_size), window)
    names = ("history", "positive", "negative", "present")
    assert {inputs[name].shape for name in names} == {shape}
    assert not np.isin(item_ids(batches, "negative"), items).any()


@given(
    st.sampled_from(BatchKind),
    st.lists(st.integers(0, 39), min_size=1, max_size=30),
    st.integers(1, 4),
    st.integers(0, 2**32 - 1),
)
def test_local_table_is_the_sorted_set_of_what_occurs(
    kind: BatchKind, items: list[int], window: int, seed: int
) -> None:
    task = manifest(kind, 40, window=window)
    batches = draw_batches(task, history_of(items), policy(), np.random.default_rng(seed))
    if not batches.samples:
        return
    names = {"item", "positive", "negative", "history"} & set(batches.inputs)
    real = {name: item_ids(batches, name) for name in names}
    assert (np.diff(batches.rows) > 0).all()
    assert set(batches.rows) == set(np.concatenate(list(real.values())))
    assert all(batches.inputs[name].dtype == np.int64 for name in names)
    assert all(batches.inputs[name].max() < len(batches.rows) for name in names)


@pytest.mark.parametrize("kind", BatchKind)
def test_each_epoch_sees_every_positive_once_in_an_order_of_its_own(kind: BatchKind) -> None:
    sequence = kind is BatchKind.SEQUENCE
    task = manifest(kind, 32, window=1)
    chosen = policy(epochs=2, batch_size=30, negatives=int(kind is BatchKind.PAIRWISE))
    history = history_of(np.arange(30 + sequence))
    batches = draw_batches(task, history, chosen, np.random.default_rng(0))
    name = "item" if kind is BatchKind.POINTWISE else "positive"
    first, second = batches.rows[batches.inputs[name]].reshape(2, 30)
    assert sorted(first) == sorted(second) == history.items[int(sequence) :].tolist()
    assert first.tolist() != second.tolist()


@pytest.mark.parametrize("capacity", [None, Capacity(rows=30, batch=4)])
@pytest.mark.parametrize("kind", BatchKind)
def test_empty_history_one_interaction_and_full_catalogue_are_defined(
    kind: BatchKind, capacity: Capacity | None
) -> None:
    rng, task = np.random.default_rng(0), manifest(kind, 10, window=2, fields=1)
    if kind is BatchKind.SEQUENCE:
        task = manifest(kind, 10, window=2)
    empty = draw_batches(task, history_of([], 1), policy(), rng, capacity)
    assert (empty.samples, empty.examples, len(empty.rows)) == (0, 0, 0)
    one = draw_batches(task, history_of([4], 1), policy(), rng, capacity)
    assert one.samples == {BatchKind.POINTWISE: 5, BatchKind.PAIRWISE: 4}.get(kind, 0)
    full = draw_batches(task, history_of(np.arange(10), 1), policy(), rng, capacity)
    assert full.samples == (10 if kind is BatchKind.POINTWISE else 0)
    for batches in (empty, one, full):
        assert len(batches.inputs["weight"]) == -(-batches.samples // (4 if capacity else 8))


def test_same_seed_same_batches() -> None:
    def draw() -> LocalBatches:
        rng, task = np.random.default_rng(5), manifest(BatchKind.PAIRWISE, 50, window=3)
        return draw_batches(task, history_of(np.arange(9)), policy(), rng)

    np.testing.assert_equal(dict(draw().inputs), dict(draw().inputs))


@pytest.mark.parametrize("kind", BatchKind)
@pytest.mark.parametrize("window", [0, 20, 1_000])
@pytest.mark.parametrize(("items", "epochs"), [(20, 100), (5_000, 100)])
@pytest.mark.parametrize("batch_size", [64, 3_400])
@pytest.mark.parametrize("capacity", [None, Capacity(rows=8_000, batch=4_000)])
def test_the_memory_of_an_update_is_bounded(
    kind: BatchKind,
    window: int,
    items: int,
    epochs: int,
    batch_size: int,
    capacity: Capacity | None,
) -> None:
    """Whatever is asked for; and what can be had is used."""
    task = manifest(kind, 9_000, window=window)
    wanted = policy(epochs=epochs, negatives=1_000, batch_size=batch_size)
    history = history_of(np.arange(items))
    tracemalloc.start()
    drawn = draw_batches(task, history, wanted, np.random.default_rng(0), capacity)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < MAX_BYTES
    if capacity is None and (kind is not BatchKind.SEQUENCE or items > 20):
        assert peak > MAX_BYTES / 4
    assert len(drawn.rows) <= (capacity or Capacity(9_000, 1)).rows


@given(
    st.sampled_from(BatchKind),
    st.lists(st.integers(0, 59), min_size=1, max_size=40),
    st.integers(0, 5),
    st.integers(1, 6),
    st.integers(0, 4),
    st.integers(1, 70),
    st.integers(1, 9),
    st.integers(0, 2**32 - 1),
)
def test_a_capacity_is_never_exceeded(
    kind: BatchKind,
    items: list[int],
    window: int,
    epochs: int,
    negatives: int,
    rows: int,
    batch: int,
    seed: int,
) -> None:
    task, rng = manifest(kind, 60, window=window), np.random.default_rng(seed)
    chosen = policy(epochs=epochs, negatives=negatives)
    batches = None
    with suppress(TrainingError):
        batches = draw_batches(task, history_of(items), chosen, rng, Capacity(rows, batch))
    if batches is None:
        # A larger table would have taken at least one sample.
        assert rows < task.history + 1 + max(negatives, task.history)
        return
    assert len(batches.rows) <= rows
    assert batches.inputs["weight"].shape == even_batches(batches.samples, min(8, batch))
    assert batches.samples == np.count_nonzero(batches.inputs["weight"])
    if kind is not BatchKind.SEQUENCE:
        each = negatives + (kind is BatchKind.POINTWISE)
        epochs_done, rest = divmod(batches.samples, max(1, len(items) * each))
        assert epochs_done <= epochs
        assert epochs_done == 0 or rest == 0 or len(set(items)) == 60


def test_a_history_larger_than_the_capacity_gets_fewer_epochs_first() -> None:
    """20 items, and 40 negatives an epoch: 200 rows hold some epochs, and each of them is whole."""
    task = manifest(BatchKind.POINTWISE, 100_000)
    history, wanted = history_of(np.arange(20)), policy(epochs=50, negatives=2)
    drawn = draw_batches(task, history, wanted, np.random.default_rng(0), Capacity(200, 8))
    assert drawn.samples == 4 * 20 * 3
    assert drawn.examples == 20
    assert len(drawn.rows) == 20 + 4 * 40


def test_then_a_random_part_of_the_positives() -> None:
    task = manifest(BatchKind.PAIRWISE, 100_000)
    history, wanted = history_of(np.arange(500)), policy(epochs=5, negatives=4)
    seen = Counter[int]()
    for seed in range(200):
        drawn = draw_batches(task, history, wanted, np.random.default_rng(seed), Capacity(100, 8))
        assert drawn.examples == 20
        assert drawn.samples == 20 * 4
        seen.update(set(item_ids(drawn, "positive").tolist()))
    assert len(seen) > 495
    assert max(seen.values()) < 25


def test_or_the_newest_windows_of_a_sequence() -> None:
    """A window of 10 reads 11 actions, one of them with the next window, and has 10 negatives."""
    task = manifest(BatchKind.SEQUENCE, 100_000, window=10)
    wanted = policy(epochs=5)
    history = history_of(np.arange(1_000))
    drawn = draw_batches(task, history, wanted, np.random.default_rng(0), Capacity(105, 64))
    assert (drawn.samples, drawn.examples) == (5, 50)
    assert sorted(item_ids(drawn, "positive")) == list(range(950, 1_000))


def test_a_capacity_below_one_sample_is_an_error_that_says_what_to_do() -> None:
    task, history = manifest(BatchKind.POINTWISE, 10_000, window=3), history_of([1, 2, 3, 4])
    with pytest.raises(TrainingError, match=r"window of 3 and its 9 negatives .* 9 rows; ask for"):
        draw_batches(task, history, policy(negatives=9), np.random.default_rng(0), Capacity(9, 8))
