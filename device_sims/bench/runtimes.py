"""A local update on every runtime and in PyTorch, and as the catalogue grows.

One thread, medians of repeated runs, every figure beside its comparison in the same run. Prints the
figures and writes `runs/bench/runtimes.json`.
"""

import argparse
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from device_sims.bench.figures import Figure, publish
from export import RECOMMENDERS, build_bundle
from export.verify import Verdict, verify
from wire.bundle import Bundle, read_bundle
from wire.manifest import Optimizer

ITEMS, DIMENSION, ROWS, STEPS = 1_682, 32, 500, 20
CATALOGUES = (1_000, 1_000_000)
CASES = (("mf", Optimizer.SGD), ("mf", Optimizer.ADAM), ("neumf", Optimizer.SGD))
GOALS = {"pytorch": 5.0, "ort-training": 2.0, "executorch": 5.0}
BUNDLE_GOAL_BYTES = 64_000


def main() -> None:
    """Measure and publish."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--ort-training",
        type=Path,
        default=Path(".venv-ort-training/bin/python"),
        help="Python of the environment with ONNX Runtime Training",
    )
    python = parser.parse_args().ort_training.absolute()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        figures = [
            figure
            for recommender, optimizer in CASES
            for figure in _against_the_others(root, recommender, optimizer, python)
        ]
        publish("runtimes", [*figures, *_growing(root), _bundle_size(root)])


def _against_the_others(
    root: Path, recommender: str, optimizer: Optimizer, python: Path
) -> Iterator[Figure]:
    verdicts = {}
    for runtimes, interpreter in ((("onnx", "executorch"), None), (("ort-training",), python)):
        bundle = _build(root, recommender, optimizer, runtimes, interpreter)
        model = RECOMMENDERS[recommender](items=ITEMS, dimension=DIMENSION)
        interpreters = {runtime: interpreter or Path(sys.executable) for runtime in runtimes}
        found = verify(bundle, model, interpreters, rows=ROWS, steps=STEPS)
        verdicts.update({verdict.engine: verdict for verdict in found})
    ours = verdicts["onnx"]
    for engine, goal in GOALS.items():
        theirs = verdicts[engine]
        yield Figure(
            figure=f"{recommender}, {optimizer}: onnx faster than {engine}",
            value=theirs.step_s / ours.step_s if not theirs.note else math.nan,
            unit="times",
            goal=goal,
            at_least=True,
            compared_with=f"{_cost(ours)} against {theirs.note or _cost(theirs)}",
        )


def _cost(verdict: Verdict) -> str:
    memory = f", {verdict.peak_bytes / 1e6:.0f} MB" if verdict.peak_bytes else ""
    return f"{verdict.step_s * 1e6:.0f} us a step{memory}"


def _build(
    root: Path,
    recommender: str,
    optimizer: Optimizer,
    runtimes: tuple[str, ...],
    interpreter: Path | None,
) -> Bundle:
    out = root / f"{recommender}-{optimizer}-{runtimes[0]}"
    words = [recommender, "--items", str(ITEMS), "--dimension", str(DIMENSION)]
    options = ["--optimizer", optimizer.value, "--row-capacity", str(ROWS), "--out", str(out)]
    # The compiler of a runtime lives in the runtime's own environment.
    export = (interpreter or Path(sys.executable)).with_name("rivulet-export")
    command = [str(export), "build", *words, *options, "--runtimes", *runtimes]
    subprocess.run(command, check=True, capture_output=True)
    return read_bundle(out)


def _growing(root: Path) -> Iterator[Figure]:
    small, large = (_local_update(root, items) for items in CATALOGUES)
    sizes = "{:,} and {:,} items".format(*CATALOGUES)
    measured = (
        ("time", "update_s", "ms", 1e3),
        ("peak memory", "peak_bytes", "MB", 1e-6),
        ("memory without mapped files", "anonymous_bytes", "MB", 1e-6),
    )
    for what, key, unit, scale in measured:
        yield Figure(
            figure=f"{what} of a local update, {sizes}",
            value=large[key] / small[key],
            unit="times",
            goal=1.1,
            at_least=False,
            compared_with=f"{small[key] * scale:.2f} and {large[key] * scale:.2f} {unit}",
        )


def _local_update(root: Path, items: int) -> Mapping[str, float]:
    out = root / str(items)
    build_bundle(RECOMMENDERS["mf"](items=items, dimension=DIMENSION), out=out)
    command = [sys.executable, "-m", "device_sims.bench.local_update", str(out)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: Mapping[str, float] = json.loads(done.stdout)
    return found


def _bundle_size(root: Path) -> Figure:
    bundle = build_bundle(RECOMMENDERS["mf"](items=ITEMS, dimension=DIMENSION), out=root / "size")
    manifest = bundle.manifest
    parameters = {manifest.initial, manifest.private, manifest.frozen}
    sizes = [entry.size_bytes for entry in manifest.files if entry.path not in parameters]
    return Figure(
        figure="bundle of mf without parameters, onnx only",
        value=sum(sizes) + len(bundle.raw_manifest),
        unit="bytes",
        goal=BUNDLE_GOAL_BYTES,
        at_least=False,
        compared_with=f"its parameters take {manifest.dense_bytes:,} bytes",
    )


if __name__ == "__main__":
    main()
