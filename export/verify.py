"""Does every runtime train a bundle as PyTorch does? Same start, same batches, side by side."""

import json
import logging
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from export.errors import ExportError, RecommenderError
from export.recommender import Recommender, batch_inputs, parameter_specs
from export.reference import local_update
from wire.bundle import Bundle
from wire.manifest import Manifest, ParameterSpec, Role
from wire.parameters import map_parameters

__all__ = ["TOLERANCE", "Verdict", "verify"]

TOLERANCE = 1e-5
"""Largest distance of a runtime's change of the parameters from PyTorch's, relative to the norm of
PyTorch's: the rounding of float32 over some steps, and nothing else. Where a model is more
sensitive, so that PyTorch's own float32 is further than a quarter of it from float64, four times
that distance counts: room for an error three times PyTorch's own. It is never over 1e-2."""

_SENSITIVE, _MOST = 4.0, 1e-2
_ROWS, _STEPS, _REPEATS = 256, 8, 20
_log = logging.getLogger(__name__)
_TRIAL = "edge_agent.runtimes.trial"
_EXIT_UNAVAILABLE = 3

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One engine's result.

    Attributes:
        engine: ``pytorch``, or a runtime.
        difference: distance of its change from PyTorch's, relative to the norm of PyTorch's; NaN if
            it did not run. For PyTorch, that of float32 from float64.
        tolerance: the largest difference that counts as rounding.
        step_s: median time of a step, in seconds.
        peak_bytes: most resident memory of its process; 0 where it shares one.
        file_bytes: size of the runtime's files but the scorer.
        note: why it did not run; empty if it did.
        available: whether it is installed.
    """

    engine: str
    difference: float = float("nan")
    tolerance: float = TOLERANCE
    step_s: float = float("nan")
    peak_bytes: int = 0
    file_bytes: int = 0
    note: str = ""
    available: bool = True

    @property
    def good(self) -> bool:
        """Whether it agrees with PyTorch, as far as it is installed."""
        return not self.available or self.difference <= self.tolerance


def verify(
    bundle: Bundle,
    recommender: Recommender,
    interpreters: Mapping[str, Path],
    *,
    rows: int = _ROWS,
    steps: int = _STEPS,
    seed: int = 0,
) -> Iterator[Verdict]:
    """Train some steps in PyTorch and on each runtime of the bundle, one after the other.

    Args:
        bundle: a checked bundle.
        recommender: the model that it was built from; its values play no part.
        interpreters: the Python of the environment that holds a runtime, by runtime, where it is
            not this one.
        rows: item rows of the local table, at most; the catalogue and the capacity may hold fewer.
        steps: how many to train.
        seed: of the batches.

    Yields:
        PyTorch's verdict first: it says how sensitive the model is, and sets the tolerance.

    Raises:
        RecommenderError: the recommender is not that of the bundle.
    """
    manifest = bundle.manifest
    if parameter_specs(recommender) != manifest.parameters:
        raise RecommenderError(
            f"the bundle {bundle.root} was built from another recommender: its parameters differ"
        )
    inputs = _draw_problem(bundle, recommender, rows, steps, np.random.default_rng(seed))
    expected = local_update(recommender, manifest.optimizer, inputs)
    yardstick = _yardstick(recommender, manifest, inputs, expected)
    tolerance = min(max(TOLERANCE, _SENSITIVE * yardstick), _MOST)
    yield Verdict(
        engine="pytorch",
        difference=yardstick,
        tolerance=tolerance,
        step_s=_time_reference(recommender, manifest, inputs),
    )
    with tempfile.TemporaryDirectory() as folder:
        given = Path(folder) / "inputs.npz"
        np.savez(given, **inputs)  # type: ignore[arg-type]  # Its stub knows one option only.
        for runtime in manifest.programs:
            python = interpreters.get(runtime, Path(sys.executable))
            verdict = _try(bundle, runtime, python, given, inputs, expected)
            yield replace(verdict, tolerance=tolerance)


def _yardstick(
    recommender: Recommender, manifest: Manifest, inputs: Arrays, found: Arrays
) -> float:
    """The difference of PyTorch's float32 from its float64; 0 if the model has no float64."""
    exact = {n: v.astype(np.float64) if v.dtype == np.float32 else v for n, v in inputs.items()}
    try:
        expected = local_update(recommender, manifest.optimizer, exact)
    except RuntimeError as error:  # what PyTorch raises for a loss that fixes float32 somewhere
        _log.warning("no float64 to compare with, the tolerance is %g: %s", TOLERANCE, error)
        return 0.0
    return _difference(manifest, inputs, found, expected)


def _draw_problem(
    bundle: Bundle, recommender: Recommender, rows: int, steps: int, rng: np.random.Generator
) -> Arrays:
    """Every input of a local update: version 0 of some rows, and random batches.

    The last step is half padding.
    """
    manifest = bundle.manifest
    capacity, samples = manifest.capacity, manifest.training.batch_size
    rows = min(rows, manifest.items, capacity.rows if capacity else rows)
    ids = np.sort(rng.choice(manifest.items, rows, replace=False))
    inputs: Arrays = {spec.name: _start(bundle, spec, ids) for spec in manifest.parameters}
    for name, batch_input in batch_inputs(recommender).items():
        shape = batch_input.shape(steps, samples)
        inputs[name] = _draw(name, shape, rows, manifest, rng)
    weight = np.ones((steps, samples), np.float32)
    weight[-1, samples // 2 :] = 0.0
    return {
        **inputs,
        "weight": weight,
        "learning_rate": np.array(manifest.training.learning_rate, np.float32),
        "proximal": np.array(manifest.training.proximal, np.float32),
        "clip": np.array(manifest.training.clip or np.inf, np.float32),
    }


def _start(bundle: Bundle, spec: ParameterSpec, ids: NDArray[np.int64]) -> NDArray[np.float32]:
    manifest = bundle.manifest
    homes = {
        Role.PRIVATE: manifest.private,
        Role.FROZEN: manifest.frozen,
        Role.FROZEN_ROWS: manifest.frozen,
    }
    values = map_parameters(bundle.root / homes.get(spec.role, manifest.initial))[spec.name]
    return np.array(values[ids] if spec.is_table else values)


def _draw(
    name: str, shape: tuple[Any, ...], rows: int, manifest: Manifest, rng: np.random.Generator
) -> NDArray[Any]:
    if name == "label":
        return rng.integers(0, 2, shape).astype(np.float32)
    if name == "present":
        # Windows of every length, padded on the left.
        lengths = rng.integers(0, shape[-1] + 1, shape[:-1])
        present = np.arange(shape[-1]) >= shape[-1] - lengths[..., None]
        return np.asarray(present, np.float32)
    if name == "context":
        fields = [rng.integers(0, field.size, shape[:-1]) for field in manifest.context]
        return np.stack(fields, axis=-1)
    positions: NDArray[np.int64] = rng.integers(0, rows, shape)
    return positions


def _time_reference(recommender: Recommender, manifest: Manifest, inputs: Arrays) -> float:
    seconds, threads = [], torch.get_num_threads()
    # As many as the runtimes take.
    torch.set_num_threads(1)
    for _ in range(_REPEATS):
        started = time.perf_counter()
        local_update(recommender, manifest.optimizer, inputs)
        seconds.append(time.perf_counter() - started)
    torch.set_num_threads(threads)
    return statistics.median(seconds) / len(inputs["weight"])


def _try(
    bundle: Bundle, runtime: str, python: Path, given: Path, inputs: Arrays, expected: Arrays
) -> Verdict:
    gained = given.with_name(f"{runtime}.npz")
    words = [str(bundle.root), runtime, str(given), str(gained), "--repeats", str(_REPEATS)]
    done = subprocess.run([python, "-m", _TRIAL, *words], capture_output=True, text=True)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        unavailable = done.returncode == _EXIT_UNAVAILABLE
        return Verdict(engine=runtime, note=lines[-1], available=not unavailable)
    cost = json.loads(done.stdout)
    with np.load(gained) as file:
        outputs = dict(file)
    parts = bundle.manifest.program(runtime).items()
    return Verdict(
        engine=runtime,
        difference=_difference(bundle.manifest, inputs, outputs, expected),
        step_s=cost["update_s"] / len(inputs["weight"]),
        peak_bytes=cost["peak_bytes"],
        file_bytes=sum(entry.size_bytes for part, entry in parts if part != "scorer"),
    )


def _difference(manifest: Manifest, inputs: Arrays, outputs: Arrays, expected: Arrays) -> float:
    trained = (*manifest.federated, *manifest.private_parameters)
    apart = moved = 0.0
    for spec in trained:
        new, right = (found[f"{spec.name}.new"].astype(np.float64) for found in (outputs, expected))
        apart += float(np.square(new - right).sum())
        moved += float(np.square(right - inputs[spec.name]).sum())
    if not moved:
        raise ExportError("PyTorch's local update changes nothing; is the learning rate 0?")
    return float(np.sqrt(apart / moved))
