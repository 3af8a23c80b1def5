"""The work of many simulated devices, done together between its beginning and its end.

Devices give their work when an update begins. It waits until there is enough for a batch, or until
the first of those devices needs its result; then the batch goes to a pool, in this process or in
others. What goes together follows from the virtual time alone, so the results are the same to the
bit wherever the pool does it.
"""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol

from device_sims.simulation.fleet_program import FleetProgram
from edge_agent.errors import AgentError, ProgramError
from edge_agent.runtimes import Program, ProgramFile, open_runtime
from edge_agent.task import LocalTask
from edge_agent.trainer import Made, Work, do, pack
from wire.errors import WireError
from wire.manifest import Manifest

__all__ = ["BATCH", "BatchTrainer", "Kit", "Pool", "Result", "Worker"]

BATCH = 128
"""Most works that wait for each other."""
FEW = 4
"""For a smaller share than one in so many of the devices that a fleet program takes, the program of
a single device is faster."""

Result = Made | AgentError | WireError


@dataclass(frozen=True, slots=True)
class Kit:
    """All that a worker needs, as values: it may be on another machine.

    Attributes:
        manifest: the raw manifest of the task.
        update: the content of the task's ONNX program.
        fleet: that of its fleet program; None to train one device after the other.
    """

    manifest: bytes
    update: bytes
    fleet: bytes | None


class Worker:
    """Does batches of work.

    Raises:
        ProgramError: ONNX Runtime refuses a program.
        ManifestError: the manifest is not valid.
    """

    def __init__(self, kit: Kit) -> None:
        self._manifest = Manifest.from_json(kit.manifest)
        self._single = _opened(self._manifest, kit.update)
        self._fleet = FleetProgram(self._manifest, kit.fleet) if kit.fleet else None

    def do(self, batch: Sequence[Work]) -> list[Result]:
        """Do some work; for each what was made, or why there is nothing."""
        made: dict[int, Result] = {}
        if self._fleet is not None:
            fitting = [at for at, work in enumerate(batch) if self._fleet.takes(work.training)]
            for group in self._fleet.groups([batch[at].training for at in fitting]):
                if FEW * len(group) >= self._fleet.devices:
                    made |= self._together(self._fleet, batch, [fitting[at] for at in group])
        return [
            made[at] if at in made else _result(partial(do, self._manifest, work, self._single))
            for at, work in enumerate(batch)
        ]

    def _together(
        self, fleet: FleetProgram, batch: Sequence[Work], group: Sequence[int]
    ) -> dict[int, Result]:
        try:
            outputs = fleet.run([batch[at].training for at in group])
        except ProgramError:
            # Each by itself has an error of its own, if any.
            return {}
        return {
            at: _result(partial(pack, self._manifest, batch[at], own))
            for at, own in zip(group, outputs, strict=True)
        }


class Pool(Protocol):
    """Where batches are done."""

    def submit(self, batch: Sequence[Work]) -> Callable[[], list[Result]]:
        """Take a batch; what is returned waits for the results, which stay the same."""
        ...

    def close(self) -> None:
        """Let everything go; what was not asked for is lost."""
        ...


@dataclass(slots=True)
class _Batch:
    works: list[Work] = field(default_factory=list)
    results: Callable[[], list[Result]] | None = None


class BatchTrainer:
    """A ``Trainer`` for all devices of a simulation.

    Args:
        pool: does the work.
        batch: most works that wait for each other, at least 1.
    """

    def __init__(self, pool: Pool, *, batch: int = BATCH) -> None:
        self._pool, self._most = pool, batch
        self._open = _Batch()

    def start(self, task: LocalTask, work: Work) -> Callable[[], Made]:
        """See ``Trainer``; the task is that of the pool's workers."""
        del task
        batch, place = self._open, len(self._open.works)
        batch.works.append(work)
        if len(batch.works) == self._most:
            self._send()

        def result() -> Made:
            if batch.results is None:
                self._send()
            assert batch.results is not None
            made = batch.results()[place]
            if isinstance(made, Exception):
                raise made
            return made

        return result

    def _send(self) -> None:
        batch, self._open = self._open, _Batch()
        batch.results, batch.works = self._pool.submit(batch.works), []


def _opened(manifest: Manifest, model: bytes) -> Program:
    with tempfile.TemporaryDirectory(prefix="rivulet-") as folder:
        path = Path(folder) / "update.onnx"
        path.write_bytes(model)
        return open_runtime("onnx").open_update(manifest, {"update": ProgramFile(path, "")})


def _result(work: Callable[[], Made]) -> Result:
    try:
        return work()
    except (AgentError, WireError) as error:
        return error
