"""From a history to training batches: fair negatives, shuffled samples, and a small local table.

Fair means that negatives are drawn from every item that is not in the *training* set. A held-out
item may be drawn: the device cannot know that the person will like it. Leaving it out would make
it the one unseen item that is never pushed down, and the evaluation would measure that.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wire.manifest import BatchKind
from wire.policy import TrainingPolicy

__all__ = ["IntArray", "LocalBatches", "absent_items", "draw_batches", "draw_negatives"]

MAX_SAMPLES = 262_144
"""Most samples of one local update. With copies, their columns take up to 40 MB at the peak:
what a device can spare, whatever policy and history ask for."""

IntArray = NDArray[np.int64]
Columns = dict[str, NDArray[np.generic]]


@dataclass(frozen=True, slots=True)
class LocalBatches:
    """What one local update trains on.

    Attributes:
        rows: int64 [R], increasing ids of every item in the batches: the local table.
        inputs: the program's batch inputs, each [steps, batch]; items are positions in ``rows``.
        samples: number of samples that count; the rest of the last batch is padding of weight 0.
        examples: number of positives behind them, each counted once.
    """

    rows: IntArray
    inputs: Mapping[str, NDArray[np.generic]]
    samples: int
    examples: int


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
    kind: BatchKind,
    positives: IntArray,
    catalogue: int,
    policy: TrainingPolicy,
    rng: np.random.Generator,
) -> LocalBatches:
    """Draw the batches of one local update: every epoch shuffled anew and with new negatives.

    A history that covers the whole catalogue has no negatives; samples that need one are left out.
    No samples at all give batches of zero steps.

    There are at most ``MAX_SAMPLES`` samples. What would exceed them gets fewer epochs, each of
    them whole; if a single epoch would, it takes a random subset of the positives.

    Args:
        kind: what a sample is.
        positives: int64 [n] training items, repeats allowed, each below ``catalogue``.
        catalogue: number of items there are.
        policy: epochs, batch size and negatives a positive.
        rng: source of randomness.
    """
    training = np.unique(positives)
    ratio = policy.negatives if len(training) < catalogue else 0
    most = MAX_SAMPLES // max(1, ratio + (kind is BatchKind.POINTWISE))
    if len(positives) > most:
        positives = rng.choice(positives, most, replace=False)
    epochs = min(policy.epochs, max(1, most // max(1, len(positives))))
    repeated = np.tile(positives, epochs)
    negatives = draw_negatives(training, catalogue, len(repeated) * ratio, rng)
    columns = (_pointwise if kind is BatchKind.POINTWISE else _pairwise)(repeated, negatives, ratio)
    samples = len(next(iter(columns.values())))
    order = _shuffled_epochs(samples, epochs, rng)
    rows, inputs = _localise({name: column[order] for name, column in columns.items()})
    padded = {name: _batched(column, policy.batch_size) for name, column in inputs.items()}
    return LocalBatches(rows, padded, samples, len(positives))


def _pointwise(positives: IntArray, negatives: IntArray, ratio: int) -> Columns:
    """Each positive followed by its own negatives, so that an epoch is one contiguous stretch."""
    items = np.column_stack([positives, negatives.reshape(len(positives), ratio)])
    label = np.zeros(items.shape, np.float32)
    label[:, 0] = 1.0
    return {
        "item": items.ravel(),
        "label": label.ravel(),
        "weight": np.ones(items.size, np.float32),
    }


def _pairwise(positives: IntArray, negatives: IntArray, ratio: int) -> Columns:
    return {
        "positive": np.repeat(positives, ratio),
        "negative": negatives,
        "weight": np.ones(len(negatives), np.float32),
    }


def _shuffled_epochs(samples: int, epochs: int, rng: np.random.Generator) -> IntArray:
    order = np.arange(samples).reshape(epochs, -1)
    return rng.permuted(order, axis=1).ravel()


def _localise(columns: Columns) -> tuple[IntArray, Columns]:
    """Replace item ids by positions in the sorted list of those that occur."""
    named = [name for name, column in columns.items() if column.dtype == np.int64]
    rows, positions = np.unique(
        np.concatenate([columns[name] for name in named]), return_inverse=True
    )
    local = np.split(positions.astype(np.int64), len(named))
    return rows.astype(np.int64), {**columns, **dict(zip(named, local, strict=True))}


def _batched(column: NDArray[np.generic], batch_size: int) -> NDArray[np.generic]:
    """Cut into [steps, batch], the last batch filled up with zeros: position 0 with weight 0."""
    steps = -(-len(column) // batch_size)
    padded = np.zeros(steps * batch_size, column.dtype)
    padded[: len(column)] = column
    return padded.reshape(steps, batch_size)
