"""Run a bundle's local update in a process of its own: what it gives, and what it costs.

    python -m edge_agent.runtimes.trial BUNDLE RUNTIME INPUTS.npz OUTPUTS.npz

`rivulet-export verify` and the benchmarks start it, with the interpreter of the environment that
holds the runtime: a process's peak of memory can be read only from a process that did nothing else,
and two of the runtimes cannot share an environment.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edge_agent.errors import AgentError, RuntimeUnavailableError
from edge_agent.runtimes.protocol import Array, Program, ProgramFile
from edge_agent.runtimes.registry import open_runtime
from wire.bundle import Bundle, read_bundle
from wire.errors import WireError

__all__ = ["EXIT_UNAVAILABLE", "main", "memory_bytes", "open_update"]

EXIT_FAILED = 1
EXIT_UNAVAILABLE = 3


def main(argv: Sequence[str] | None = None) -> int:
    """Run the update, write its outputs, and print what it cost as a line of JSON.

    The line has ``open_s`` and ``update_s`` (the median of the repeats) in seconds, and
    ``peak_bytes``, the most resident memory that the process ever took.

    Returns:
        0 if done, 3 if the runtime is not installed, 1 if anything else is wrong.
    """
    arguments = _parser().parse_args(argv)
    try:
        bundle = read_bundle(arguments.bundle)
        started = time.perf_counter()
        program = open_update(bundle, arguments.runtime)
        open_s = time.perf_counter() - started
        with np.load(arguments.inputs) as file:
            inputs = dict(file)
        outputs = program.run(inputs)
        update_s = [_timed(program, inputs) for _ in range(arguments.repeats)]
    except RuntimeUnavailableError as error:
        print(error, file=sys.stderr)
        return EXIT_UNAVAILABLE
    except (AgentError, WireError) as error:
        print(error, file=sys.stderr)
        return EXIT_FAILED
    np.savez(arguments.outputs, **outputs)  # type: ignore[arg-type]
    cost = {
        "open_s": open_s,
        "update_s": statistics.median(update_s),
        "peak_bytes": memory_bytes("VmHWM"),
    }
    print(json.dumps(cost))
    return 0


def open_update(bundle: Bundle, runtime: str) -> Program:
    """Open the local update of a bundle on disk.

    Raises:
        RuntimeUnavailableError: the runtime is not installed.
        ProgramError: it refuses the program.
        ManifestError: the bundle has no program for it.
    """
    parts = bundle.manifest.program(runtime)
    files = {part: ProgramFile(bundle.path(entry), entry.sha256) for part, entry in parts.items()}
    return open_runtime(runtime).open_update(bundle.manifest, files)


def _timed(program: Program, inputs: dict[str, Array]) -> float:
    started = time.perf_counter()
    program.run(inputs)
    return time.perf_counter() - started


def memory_bytes(figure: str, process: int | str = "self") -> int:
    """One of Linux's figures on the memory of a process, in bytes.

    Args:
        figure: its name in ``/proc/PID/status``: ``VmHWM`` is the most that was ever resident,
            ``RssAnon`` what is resident now and is not a page of a file.
        process: its number; this one by default.
    """
    # Not getrusage: its peak is inherited from the process that started this one.
    for line in Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{figure}:"):
            return int(line.split()[1]) << 10
    raise OSError(f"the kernel tells no {figure} of process {process}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="trial", description=__doc__)
    parser.add_argument("bundle", type=Path, help="folder of the bundle")
    parser.add_argument("runtime", help="name of the runtime, as in the manifest")
    parser.add_argument("inputs", type=Path, help="a .npz file with every input of the update")
    parser.add_argument("outputs", type=Path, help="where to write a .npz file of its outputs")
    parser.add_argument("--repeats", type=int, default=5, help="timed runs after a first one")
    return parser


if __name__ == "__main__":
    sys.exit(main())
