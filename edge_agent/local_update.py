"""The local update: from a base version and a history to a delta. Nothing is stored or sent."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from edge_agent.errors import ProgramError, TrainingError
from edge_agent.history import History, IntArray
from edge_agent.runtimes.protocol import Array, Program
from edge_agent.sampling import draw_batches
from wire.delta import Delta, FloatArray, RowBlock, Tensor
from wire.manifest import Capacity, Manifest, ParameterSpec, Role
from wire.parameters import Table
from wire.policy import TrainingPolicy

__all__ = ["LocalUpdate", "Training", "conclude", "gather", "prepare", "train", "trained"]


@dataclass(frozen=True, slots=True)
class LocalUpdate:
    """What one local update made.

    Attributes:
        delta: final minus base over the federated parameters; rows that did not change are left
            out.
        private: the new private parameters.
        losses: float32 [steps].
        examples: number of training interactions (positives) behind it.
        samples: number of samples, all epochs and negatives counted.
    """

    delta: Delta
    private: Mapping[str, FloatArray]
    losses: NDArray[np.float32]
    examples: int
    samples: int


@dataclass(frozen=True, slots=True)
class Training:
    """What a program is to do, with nothing left to draw or to read.

    Attributes:
        rows: int64 [R], increasing ids of the rows in the local tables.
        start: the shared parameters as ``gather`` gives them.
        others: the other inputs of the training program.
        samples: number of samples, all epochs and negatives counted.
        examples: number of training interactions (positives) behind them.
    """

    rows: IntArray
    start: Mapping[str, FloatArray]
    others: Mapping[str, Array]
    samples: int
    examples: int

    @property
    def inputs(self) -> dict[str, Array]:
        """Every input of the training program."""
        return {**self.start, **self.others}


def gather(manifest: Manifest, base: Mapping[str, Table], rows: IntArray) -> dict[str, FloatArray]:
    """The shared parameters as a program takes them: some rows of each table, others whole.

    Args:
        manifest: says which is which.
        base: full parameters, typically mapped files of which only these rows are read.
        rows: int64 [R] row ids.
    """
    return {
        spec.name: np.asarray(base[spec.name][rows if spec.is_table else ...])
        for spec in (*manifest.federated, *manifest.frozen_parameters)
    }


def prepare(
    manifest: Manifest,
    base: Mapping[str, Table],
    private: Mapping[str, FloatArray],
    history: History,
    policy: TrainingPolicy,
    rng: np.random.Generator,
    capacity: Capacity | None = None,
) -> Training:
    """Draw what to train on and read what is trained: all that a program needs.

    No samples (an empty history, a sequence of one action, or no item left to be a negative where
    a sample needs one) give a training without any, which no program need run. A history that
    is too large for the program is trained on in part, see ``draw_batches``.

    Args:
        manifest: of the task.
        base: full federated and frozen parameters, read only where the batches touch them.
        private: the device's private parameters.
        history: what to train on, ``History.known_to`` the manifest.
        policy: how to train.
        rng: for negatives and the order of samples.
        capacity: of the program.

    Raises:
        TrainingError: the program holds not even one sample.
    """
    batches = draw_batches(manifest, history, policy, rng, capacity)
    start = gather(manifest, base, batches.rows)
    others = {**private, **batches.inputs, **_steering(policy)}
    return Training(batches.rows, start, others, batches.samples, batches.examples)


def conclude(manifest: Manifest, training: Training, outputs: Mapping[str, Array]) -> LocalUpdate:
    """What a program's outputs mean.

    Raises:
        ProgramError: they do not fit the manifest.
        TrainingError: a result is not finite.
    """
    delta: dict[str, Tensor] = {}
    for spec in manifest.federated:
        before = training.start[spec.name]
        change = _result(outputs, f"{spec.name}.new", before.shape) - before
        delta[spec.name] = _changed(training.rows, change) if spec.role is Role.ROWS else change
    private = {
        spec.name: _result(outputs, f"{spec.name}.new", spec.shape)
        for spec in manifest.private_parameters
    }
    losses = _result(outputs, "loss", training.others["weight"].shape[:1])
    return LocalUpdate(delta, private, losses, training.examples, training.samples)


def trained(specs: Sequence[ParameterSpec], training: Training) -> Delta:
    """The federated parameters that a training may change, as they are before."""
    start = ((spec, training.start[spec.name]) for spec in specs)
    return {
        spec.name: RowBlock(training.rows, values) if spec.role is Role.ROWS else values
        for spec, values in start
    }


def train(
    manifest: Manifest,
    base: Mapping[str, Table],
    private: Mapping[str, FloatArray],
    history: History,
    policy: TrainingPolicy,
    rng: np.random.Generator,
    program: Program,
) -> LocalUpdate:
    """Train on a history, starting from a base version.

    No samples give an empty delta and the private parameters as they were.

    Args:
        manifest: of the task.
        base: see ``prepare``, as the next four.
        private: not changed.
        history: what to train on.
        policy: how to train.
        rng: source of randomness.
        program: the manifest's training program.

    Raises:
        ProgramError: the program does not fit the manifest, or failed.
        TrainingError: a result is not finite, or the program holds not even one sample.
    """
    training = prepare(manifest, base, private, history, policy, rng, program.capacity)
    if not training.samples:
        return LocalUpdate({}, dict(private), np.zeros(0, np.float32), training.examples, 0)
    return conclude(manifest, training, program.run(training.inputs))


def _steering(policy: TrainingPolicy) -> dict[str, FloatArray]:
    return {
        "learning_rate": np.array(policy.learning_rate, np.float32),
        "proximal": np.array(policy.proximal, np.float32),
        "clip": np.array(policy.clip or np.inf, np.float32),
    }


def _result(outputs: Mapping[str, Array], name: str, shape: tuple[int, ...]) -> FloatArray:
    value = outputs.get(name)
    if value is None or value.shape != shape or value.dtype != np.float32:
        found = "nothing" if value is None else f"{value.dtype} {list(value.shape)}"
        raise ProgramError(f"the program gave {found} as {name}; expected float32 {list(shape)}")
    if not np.isfinite(value).all():
        raise TrainingError(
            f"{name} is not finite after training; the learning rate is probably too high"
        )
    return cast(FloatArray, value)


def _changed(rows: IntArray, change: FloatArray) -> RowBlock:
    touched = change.any(axis=1)
    return RowBlock(rows[touched], change[touched])
