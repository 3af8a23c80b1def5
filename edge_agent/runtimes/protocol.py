"""What the agent asks of a runtime."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_agent.errors import ProgramError
from wire.manifest import Capacity, Manifest

__all__ = ["Array", "Program", "ProgramFile", "Runtime", "check_given", "part"]

Array = NDArray[np.generic] | NDArray[Any]


@dataclass(frozen=True, slots=True)
class ProgramFile:
    """One file of a program.

    Attributes:
        path: where it is.
        digest: SHA-256 of its content in hex, which the caller has checked.
    """

    path: Path
    digest: str


class Program(Protocol):
    """A loaded program; several threads may run it at once."""

    @property
    def capacity(self) -> Capacity | None:
        """The largest tables and batches that it takes; None: any."""
        ...

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run it once: a whole local update, or the scores of some rows.

        Args:
            inputs: arrays by input name; those that the program does not declare are ignored,
                because a scorer need not use every parameter.

        Returns:
            Every output by name.

        Raises:
            ProgramError: an input is missing, of the wrong shape or over the capacity, or the
                engine failed.
        """
        ...


class Runtime(Protocol):
    """One engine. Opening the same files twice gives the same loaded program."""

    @property
    def name(self) -> str:
        """As in the manifest's programs, for example ``onnx``."""
        ...

    def open_update(self, manifest: Manifest, files: Mapping[str, ProgramFile]) -> Program:
        """Load the local update.

        Args:
            manifest: of the task.
            files: the runtime's files by part, as in ``manifest.programs``.

        Raises:
            ProgramError: a part is missing, or the engine refuses a file.
        """
        ...

    def open_scorer(self, manifest: Manifest, files: Mapping[str, ProgramFile]) -> Program:
        """Load the scorer; arguments and errors as in ``open_update``."""
        ...


def part(files: Mapping[str, ProgramFile], name: str) -> ProgramFile:
    """One of a program's files; ProgramError where the bundle lacks it."""
    if name not in files:
        raise ProgramError(f"the bundle has no part {name!r} for this runtime")
    return files[name]


def check_given(inputs: Mapping[str, Array], names: Iterable[str]) -> None:
    """Raise ProgramError unless every input of these names is there."""
    missing = [name for name in names if name not in inputs]
    if missing:
        raise ProgramError(f"the program needs the inputs {missing}, which nobody gives it")
