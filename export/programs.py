"""The programs of a bundle, compiled for each runtime that is asked for."""

from collections.abc import Callable, Mapping, Sequence

from export.errors import ExportError
from export.onnx_graph import to_bytes
from export.recommender import Recommender
from export.scorer import scorer_program
from export.training_graph import training_program
from wire.manifest import Capacity, Optimizer

__all__ = ["RUNTIMES", "STATIC_RUNTIMES", "compile_programs"]

SCORER_FILE = "programs/scorer.onnx"

Files = dict[str, bytes]
"""Contents of files, by path in the bundle."""

Compiler = Callable[[Recommender, Optimizer, Capacity], tuple[dict[str, str], Files]]
"""Gives the paths of a runtime's files by part, and those files beside the ONNX scorer."""


def compile_programs(
    recommender: Recommender, optimizer: Optimizer, runtimes: Sequence[str], capacity: Capacity
) -> tuple[dict[str, Mapping[str, str]], Files]:
    """Compile a recommender for some runtimes.

    Args:
        recommender: the model; the values of its parameters play no part.
        optimizer: of the local update.
        runtimes: names from `RUNTIMES`.
        capacity: of the programs with static shapes.

    Returns:
        For each runtime the paths of its files by part, and the content of all files by path.

    Raises:
        RecommenderError: the recommender breaks a rule, or cannot be exported.
        ExportError: a runtime is unknown, its compiler is not installed, or it lacks the optimizer.
    """
    for runtime in runtimes:
        if runtime not in RUNTIMES:
            known = ", ".join(RUNTIMES)
            raise ExportError(f"the runtime {runtime!r} is unknown; expected one of {known}")
    programs: dict[str, Mapping[str, str]] = {}
    files = {SCORER_FILE: to_bytes(scorer_program(recommender))}
    for runtime in runtimes:
        programs[runtime], compiled = RUNTIMES[runtime](recommender, optimizer, capacity)
        files.update(compiled)
    used = {path for parts in programs.values() for path in parts.values()}
    return programs, {path: raw for path, raw in files.items() if path in used}


def _onnx(
    recommender: Recommender, optimizer: Optimizer, capacity: Capacity
) -> tuple[dict[str, str], Files]:
    del capacity
    path = "programs/update.onnx"
    files = {path: to_bytes(training_program(recommender, optimizer))}
    return {"update": path, "scorer": SCORER_FILE}, files


def _executorch(
    recommender: Recommender, optimizer: Optimizer, capacity: Capacity
) -> tuple[dict[str, str], Files]:
    # Here and below, because the package that compiles need not be installed.
    from export.executorch import executorch_programs

    compiled = executorch_programs(recommender, optimizer, capacity)
    files = {f"programs/{part}.pte": raw for part, raw in compiled.items()}
    return {part: f"programs/{part}.pte" for part in compiled}, files


def _ort_training(
    recommender: Recommender, optimizer: Optimizer, capacity: Capacity
) -> tuple[dict[str, str], Files]:
    from export.ort_training import ort_training_programs

    compiled = ort_training_programs(recommender, optimizer, capacity)
    paths = {part: f"programs/ort-training/{part}" for part in compiled}
    files = {paths[part]: raw for part, raw in compiled.items()}
    return {**paths, "scorer": SCORER_FILE}, files


RUNTIMES: Mapping[str, Compiler] = {
    "onnx": _onnx,
    "executorch": _executorch,
    "ort-training": _ort_training,
}
"""What compiles for each runtime."""

STATIC_RUNTIMES = frozenset({"executorch", "ort-training"})
"""The runtimes whose programs have static shapes."""
