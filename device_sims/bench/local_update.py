"""Time and peak memory of one bundle's local update, in a process of its own.

    python -m device_sims.bench.local_update BUNDLE

Everything that an agent does between a version on its disk and a delta: draw negatives, gather the
rows from the mapped file, train. Prints a line of JSON.
"""

import json
import statistics
import sys
import time
from pathlib import Path

import numpy as np

from edge_agent.history import History
from edge_agent.local_update import train
from edge_agent.runtimes.trial import memory_bytes, open_update
from wire.bundle import read_bundle
from wire.parameters import map_parameters

HISTORY, REPEATS = 100, 50


def main() -> None:
    """Measure and print."""
    bundle = read_bundle(Path(sys.argv[1]))
    manifest = bundle.manifest
    program = open_update(bundle, "onnx")
    base = map_parameters(bundle.root / manifest.initial)
    private = dict(map_parameters(bundle.root / manifest.private))
    rng = np.random.default_rng(0)
    items = rng.choice(manifest.items, HISTORY, replace=False)
    history = History(items, np.zeros((HISTORY, len(manifest.context)), np.int64))
    seconds = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        train(manifest, base, private, history, manifest.training, rng, program)
        seconds.append(time.perf_counter() - started)
    found = {
        "update_s": statistics.median(seconds),
        "peak_bytes": memory_bytes("VmHWM"),
        # The kernel can take back the pages of a mapped file, but not these.
        "anonymous_bytes": memory_bytes("RssAnon"),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
