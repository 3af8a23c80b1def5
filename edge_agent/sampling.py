"""From a history to training batches: fair negatives, shuffled samples, and a small local table.

Fair means that negatives are drawn from every item that is not in the *training* set. A held-out
item may be drawn: the device cannot know that the person will like it. Leaving it out would make
it the one unseen item that is never pushed down, and the evaluation would measure that.

Whatever a sample is, it belongs to one interaction of the history, and what it reads of the history
is that interaction and the L before it, L being the length of the recommender's window:

- ``pointwise``, ``pairwise``: the interaction is the positive, and its negatives share its context
  and its window;
- ``sequence``: the interaction is the newest of L consecutive ones, each predicted from those
  before it in the window and with one negative of its own, whatever the policy's ``negatives``.
  Counted from the newest, windows follow each other without a gap or an overlap, so that every
  interaction but the very first, which nothing precedes, is predicted once in an epoch.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from edge_agent.errors import TrainingError
from edge_agent.history import History, IntArray
from wire.manifest import BatchKind, Capacity, Manifest
from wire.policy import TrainingPolicy

__all__ = [
    "MAX_BYTES",
    "LocalBatches",
    "absent_items",
    "distinct_items",
    "draw_batches",
    "draw_negatives",
]

MAX_BYTES = 40 << 20
"""Most memory of one local update's batches while they are drawn, beside the history itself: what a
device can spare, whatever policy and history ask for."""
# What one predicted item takes of it, copies included, and then each field and position of a window
# beside it; a test measures them.
ITEM_BYTES, FIELD_BYTES, POSITION_BYTES = 160, 16, 12

Column = NDArray[np.generic]
Columns = dict[str, Column]


@dataclass(frozen=True, slots=True)
class LocalBatches:
    """What one local update trains on.

    Attributes:
        rows: int64 [R], increasing ids of every item in the batches: the local table.
        inputs: the program's batch inputs, each [steps, batch] or [steps, batch, width]; items are
            positions in ``rows``.
        samples: number of samples that count; the rest of the last batch is padding of weight 0.
        examples: number of positives behind them, each counted once.
    """

    rows: IntArray
    inputs: Mapping[str, Column]
    samples: int
    examples: int


def distinct_items(items: IntArray) -> IntArray:
    """The distinct items, increasing: ``numpy.unique``, several times as fast for so few."""
    ordered = np.sort(items)
    first = np.ones(len(ordered), np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=first[1:])
    return ordered[first]


def absent_items(present: IntArray, positions: IntArray) -> IntArray:
    """The items at some positions of the list of all ids that are *not* present.

    Args:
        present: int64 [n], strictly increasing ids.
        positions: int64 [k], each from 0 to catalogue - n - 1.

    Returns:
        int64 [k]; a one-to-one map, so uniform positions give uniform items.
    """
    absent_before = present - np.arange(len(present))
    return positions + np.searchsorted(absent_before, positions, side="right")


def draw_negatives(
    training: IntArray, catalogue: int, count: int, rng: np.random.Generator
) -> IntArray:
    """Items drawn uniformly, with replacement, from those not in the training set.

    Args:
        training: int64 [n], strictly increasing ids of the training set.
        catalogue: number of items there are; more than n.
        count: how many to draw.
        rng: source of randomness.
    """
    return absent_items(training, rng.integers(0, catalogue - len(training), count))


def draw_batches(
    manifest: Manifest,
    history: History,
    policy: TrainingPolicy,
    rng: np.random.Generator,
    capacity: Capacity | None = None,
) -> LocalBatches:
    """Draw the batches of one local update: every epoch shuffled anew and with new negatives.

    A history that covers the whole catalogue has no negatives; samples that need one are left out.
    No samples at all give batches of zero steps. A step has at most the policy's batch size of
    samples, all steps nearly the same number.

    Memory and rows have a bound, ``MAX_BYTES`` and the capacity. What would exceed one of them gets
    fewer epochs, each of them whole; if a single epoch would, it takes only a part of the
    positives: a random one, or the newest windows of a sequence.

    Args:
        manifest: says what a sample is, and how many items there are.
        history: what to train on, each item in the catalogue.
        policy: epochs, batch size and negatives a positive.
        rng: source of randomness.
        capacity: the most rows, and samples a step, that the program takes; None: any.

    Raises:
        TrainingError: the capacity does not hold a single sample.
    """
    chosen = _choose(manifest, history, policy, rng)
    batch_size = policy.batch_size
    if capacity is not None:
        chosen = _fit(chosen, history, manifest.history, capacity.rows)
        batch_size = min(batch_size, capacity.batch)
    read = _read(chosen.ends, history, manifest.history)
    rows = distinct_items(np.append(read, chosen.negatives))
    local = History(_positions(rows, history.items), history.context)
    negatives = _positions(rows, chosen.negatives)
    columns = _COLUMNS[manifest.batch](local.items, chosen.ends, negatives)
    samples = len(columns["end"])
    order = _shuffled_epochs(samples, len(negatives), rng)
    batched = {name: _batched(column[order], batch_size) for name, column in columns.items()}
    inputs = _with_surroundings(batched, manifest, local)
    return LocalBatches(rows, inputs, samples, _examples(manifest, chosen.ends))


@dataclass(frozen=True, slots=True)
class _Chosen:
    """What to train on.

    Attributes:
        ends: int64 [n]: the interaction of each positive, or the newest one of each window; if not
            all can be taken, the first ones are.
        negatives: int64 [epochs, n, k] item ids.
    """

    ends: IntArray
    negatives: IntArray


def _choose(
    manifest: Manifest, history: History, policy: TrainingPolicy, rng: np.random.Generator
) -> _Chosen:
    training = distinct_items(history.items)
    all_known = len(training) == manifest.items
    if manifest.batch is BatchKind.SEQUENCE:
        ratio = manifest.history
        ends = np.arange(0 if all_known else len(history))[:0:-ratio]
    else:
        ratio = 0 if all_known else policy.negatives
        ends = rng.permutation(len(history))
    most = MAX_BYTES // _bytes(manifest, ratio)
    ends = ends[:most]
    epochs = min(policy.epochs, max(1, most // max(1, len(ends))))
    drawn = draw_negatives(training, manifest.items, epochs * len(ends) * ratio, rng)
    negatives = drawn.reshape(epochs, len(ends), ratio)
    if manifest.batch is BatchKind.SEQUENCE:
        # Padding needs no row of its own, so it takes one that is read anyway.
        there = ends[:, None] + np.arange(1 - ratio, 1) > 0
        negatives = np.where(there, negatives, history.items[ends, None])
    return _Chosen(ends, negatives)


def _bytes(manifest: Manifest, ratio: int) -> int:
    """Memory that one positive, or one window, takes in one epoch."""
    if manifest.batch is BatchKind.SEQUENCE:
        return manifest.history * ITEM_BYTES
    samples = max(1, ratio + (manifest.batch is BatchKind.POINTWISE))
    beside = manifest.history * POSITION_BYTES + len(manifest.context) * FIELD_BYTES
    return samples * (ITEM_BYTES + beside)


def _fit(chosen: _Chosen, history: History, length: int, rows: int) -> _Chosen:
    """As much as has at most so many distinct items."""
    ends, negatives = chosen.ends, chosen.negatives
    read = _read(ends, history, length)
    epochs = _fitting((np.append(read, epoch) for epoch in negatives), rows)
    if epochs:
        return _Chosen(ends, negatives[:epochs])
    read_by_each = (history.items[max(0, end - length) : end + 1] for end in ends)
    fitting = _fitting(map(np.append, read_by_each, negatives[0]), rows)
    if not fitting:
        raise TrainingError(
            f"a sample with its window of {length} and its {negatives.shape[2]} negatives does not "
            f"fit into the program's {rows} rows; ask for fewer negatives, or export with more rows"
        )
    return _Chosen(ends[:fitting], negatives[:1, :fitting])


def _fitting(groups: Iterable[IntArray], rows: int) -> int:
    """How many of the first groups have at most so many distinct items together."""
    seen: set[int] = set()
    count = 0
    for group in groups:
        seen.update(np.unique(group)[: rows + 1].tolist())
        if len(seen) > rows:
            break
        count += 1
    return count


def _read(ends: IntArray, history: History, length: int) -> IntArray:
    """Items of the interactions that some samples read: at each end, and in the window before."""
    change = np.bincount(np.maximum(ends - length, 0), minlength=len(history) + 1)
    change -= np.bincount(ends + 1, minlength=len(history) + 1)
    return history.items[np.cumsum(change)[:-1] > 0]


def _pointwise(items: IntArray, ends: IntArray, negatives: IntArray) -> Columns:
    """Each positive followed by its own negatives, so that an epoch is one contiguous stretch."""
    epochs, _, ratio = negatives.shape
    each = np.tile(ends, epochs)
    item = np.column_stack([items[each], negatives.reshape(len(each), ratio)])
    label = np.zeros(item.shape, np.float32)
    label[:, 0] = 1.0
    end = np.repeat(each, 1 + ratio)
    return {"item": item.ravel(), "label": label.ravel(), **_counted(end)}


def _pairwise(items: IntArray, ends: IntArray, negatives: IntArray) -> Columns:
    epochs, _, ratio = negatives.shape
    end = np.repeat(np.tile(ends, epochs), ratio)
    return {"positive": items[end], "negative": negatives.ravel(), **_counted(end)}


def _windows(items: IntArray, ends: IntArray, negatives: IntArray) -> Columns:
    del items  # They are surroundings, too.
    epochs, _, length = negatives.shape
    return {"negative": negatives.reshape(-1, length), **_counted(np.tile(ends, epochs))}


def _counted(end: IntArray) -> Columns:
    return {"end": end, "weight": np.ones(len(end), np.float32)}


_COLUMNS = {
    BatchKind.POINTWISE: _pointwise,
    BatchKind.PAIRWISE: _pairwise,
    BatchKind.SEQUENCE: _windows,
}


def _shuffled_epochs(samples: int, epochs: int, rng: np.random.Generator) -> IntArray:
    order = np.arange(samples).reshape(epochs, -1)
    return rng.permuted(order, axis=1).ravel()


def _positions(rows: IntArray, items: IntArray) -> IntArray:
    """Of items in the sorted local table; those that it lacks, and that nothing reads, get any."""
    return np.searchsorted(rows, items).astype(np.int64, copy=False)


def _batched(column: Column, batch_size: int) -> Column:
    """Cut into [steps, batch, ...], the last batch filled up with zeros.

    So padding has the weight 0, and the oldest interaction, whose window is empty. Steps are as few
    as the batch size allows, and as even: padding would take memory, too.
    """
    steps = -(-len(column) // batch_size)
    width = -(-len(column) // max(1, steps))
    padded = np.zeros((steps * width, *column.shape[1:]), column.dtype)
    padded[: len(column)] = column
    return padded.reshape(steps, width, *column.shape[1:])


def _with_surroundings(columns: Columns, manifest: Manifest, local: History) -> Columns:
    """Replace each sample's interaction by what the recommender sees around it."""
    end, length = columns.pop("end").astype(np.int64, copy=False), manifest.history
    if manifest.context:
        columns["context"] = local.context[end]
    if length:
        # Only views of the history until they are indexed: the window before each interaction.
        before = sliding_window_view(np.append(np.zeros(length, np.int64), local.items), length)
        real = np.repeat(np.array([0, 1], np.float32), (length, len(local)))
        columns["history"] = before[end]
        columns["present"] = sliding_window_view(real, length)[end]
        if manifest.batch is BatchKind.SEQUENCE:
            there = np.not_equal(columns["present"], 0)
            columns["positive"] = np.where(there, before[end + 1], 0)
            columns["negative"] = np.where(there, columns["negative"], 0)
    return columns


def _examples(manifest: Manifest, ends: IntArray) -> int:
    if manifest.batch is BatchKind.SEQUENCE:
        return int(np.minimum(ends, manifest.history).sum())
    return len(ends)
