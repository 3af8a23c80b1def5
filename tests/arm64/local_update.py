"""Make one local update from each bundle and write down what it gave.

Both machines that ``scripts/test-arm64`` compares run this, in one process each, and it needs no
more than an agent has.
"""

import argparse
import platform
import time
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from edge_agent.history import History
from edge_agent.local_update import train
from edge_agent.runtimes import ProgramFile, Runtime, open_runtime
from wire.bundle import Bundle, read_bundle
from wire.codec import encode_delta
from wire.delta import RowBlock
from wire.messages import Update
from wire.parameters import map_parameters

INTERACTIONS = 200


def main() -> None:
    """Write the file, an ``.npz``: which machine this is, and the results by bundle and kind."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundles", type=Path, nargs="+", help="folders of bundles")
    parser.add_argument("--out", type=Path, required=True, help="file to write")
    parser.add_argument("--seed", type=int, default=0, help="of histories and of sampling")
    arguments = parser.parse_args()

    runtime = open_runtime("onnx")
    results: dict[str, NDArray[np.generic]] = {
        "machine": np.array(platform.machine()),
        "versions": np.array(f"numpy {np.__version__}, onnxruntime {onnxruntime.__version__}"),
    }
    print(f"{platform.machine()}: Python {platform.python_version()}, {results['versions']}")
    for root in arguments.bundles:
        started_s = time.perf_counter()
        result = local_update(read_bundle(root), runtime, np.random.default_rng(arguments.seed))
        print(f"{platform.machine()}: {root.name} took {time.perf_counter() - started_s:.2f} s")
        results |= {f"{root.name}/{key}": array for key, array in result.items()}
    np.savez(arguments.out, allow_pickle=False, **results)


def local_update(
    bundle: Bundle, runtime: Runtime, rng: np.random.Generator
) -> dict[str, NDArray[np.generic]]:
    """One update from the bundle's initial parameters and a drawn history.

    Returns:
        ``rows/<name>`` int64 [n] for each table; ``delta/<name>`` float32, the change of each
        federated parameter; ``private/<name>`` float32, of each private one; ``message`` uint8,
        the delta as it is sent.
    """
    manifest = bundle.manifest
    parts = manifest.program(runtime.name).items()
    files = {part: ProgramFile(bundle.path(entry), entry.sha256) for part, entry in parts}
    initial, private, frozen = (
        map_parameters(bundle.root / path)
        for path in (manifest.initial, manifest.private, manifest.frozen)
    )
    sizes = [field.size for field in manifest.context]
    history = History(
        items=rng.integers(0, manifest.items, INTERACTIONS),
        context=rng.integers(0, sizes, (INTERACTIONS, len(sizes))),
    )
    learned = train(
        manifest,
        {**initial, **frozen},
        private,
        history,
        manifest.training,
        rng,
        runtime.open_update(manifest, files),
    )
    result: dict[str, NDArray[np.generic]] = {}
    for name, tensor in learned.delta.items():
        if isinstance(tensor, RowBlock):
            result[f"rows/{name}"] = tensor.rows
        result[f"delta/{name}"] = tensor.values if isinstance(tensor, RowBlock) else tensor
    for name, value in learned.private.items():
        result[f"private/{name}"] = value - private[name]
    message = Update(
        task=bundle.task,
        sequence=1,
        base_version=0,
        examples=learned.examples,
        payload=encode_delta(learned.delta, manifest.federated, manifest.codec),
    ).encode()
    return {**result, "message": np.frombuffer(message, np.uint8)}


if __name__ == "__main__":
    main()
