"""What the agent asks of a runtime."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["Array", "Program", "Runtime"]

Array = NDArray[np.generic] | NDArray[Any]


class Program(Protocol):
    """A loaded program; several threads may run it at once."""

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run it once.

        Args:
            inputs: arrays by input name; those that the program does not declare are ignored,
                because a scorer need not use every parameter.

        Returns:
            Every output by name.

        Raises:
            ProgramError: an input is missing or of the wrong shape, or the engine failed.
        """
        ...


class Runtime(Protocol):
    """One engine. Loading the same program twice gives the same loaded program."""

    @property
    def name(self) -> str:
        """As in the manifest's programs, for example ``onnx``."""
        ...

    def load(self, path: Path, digest: str) -> Program:
        """Load a program file.

        Args:
            path: the file.
            digest: SHA-256 of its content in hex, which the caller has checked.

        Raises:
            ProgramError: the engine refuses the file.
        """
        ...
