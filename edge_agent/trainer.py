"""The work of a local update: from values to a payload, the same wherever it is done.

A device trains on its own, where the update is due. A simulator has many devices to train, and
time that passes between the beginning of an update and its end: it takes the work of each when it
begins, does many together or hands them to other processes, and gives the results when they are
due. So the work is values alone, and everything drawn is drawn from a seed that comes with it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from edge_agent.local_update import Training, conclude
from edge_agent.runtimes.protocol import Array, Program
from edge_agent.task import LocalTask
from wire.codec import encode_and_decode
from wire.delta import Delta, FloatArray, RowBlock, Tensor
from wire.feedback import compensate, leftover
from wire.manifest import Manifest
from wire.policy import CodecPolicy

__all__ = ["Here", "Made", "Trainer", "Work", "do", "pack", "touched"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One local update that is to be made.

    Attributes:
        training: what to train; at least one sample.
        residual: what the codec left out before, aged, of at least the rows that are trained.
        codec: how to encode what is learned.
        seed: of what the codec draws.
    """

    training: Training
    residual: Delta
    codec: CodecPolicy
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What came of it.

    Attributes:
        payload: the encoded delta.
        learned: the delta as it was trained.
        private: the new private parameters.
        residual: replaces these rows of the task's residual.
        train_loss: mean loss a step.
        examples: training interactions behind it.
    """

    payload: bytes
    learned: Delta
    private: Mapping[str, FloatArray]
    residual: Delta
    train_loss: float
    examples: int


class Trainer(Protocol):
    """Does the work of local updates."""

    def start(self, task: LocalTask, work: Work) -> Callable[[], Made]:
        """Take work, and do it now, later, or elsewhere.

        Returns:
            What waits for the result. It raises ProgramError, TrainingError or WireError where
            there is none.
        """
        ...


class Here:
    """Does it when the result is asked for, with the task's own program."""

    def start(self, task: LocalTask, work: Work) -> Callable[[], Made]:
        """See ``Trainer``."""
        return lambda: do(task.manifest, work, task.program)


def do(manifest: Manifest, work: Work, program: Program) -> Made:
    """Train and encode.

    Raises:
        ProgramError: the program does not fit the manifest, or failed.
        TrainingError: a result is not finite.
        WireError: it cannot be encoded.
    """
    return pack(manifest, work, program.run(work.training.inputs))


def pack(manifest: Manifest, work: Work, outputs: Mapping[str, Array]) -> Made:
    """Encode what a program's outputs say; errors as in ``do``."""
    learned = conclude(manifest, work.training, outputs)
    residual = touched(work.residual, learned.delta)
    compensated = compensate(learned.delta, residual, work.codec)
    rng = np.random.default_rng(work.seed)
    payload, decoded = encode_and_decode(compensated, manifest.federated, work.codec, rng)
    return Made(
        payload=payload,
        learned=learned.delta,
        private=learned.private,
        residual=leftover(residual, compensated, decoded),
        train_loss=float(learned.losses.mean()),
        examples=learned.examples,
    )


def touched(residual: Delta, delta: Delta) -> Delta:
    """What there is of a residual in the rows that a delta has."""
    return {name: _touched(tensor, delta[name]) for name, tensor in residual.items()}


def _touched(residual: Tensor, delta: Tensor) -> Tensor:
    if isinstance(residual, RowBlock) and isinstance(delta, RowBlock):
        kept = delta.has(residual.rows)
        return RowBlock(residual.rows[kept], residual.values[kept])
    return residual
