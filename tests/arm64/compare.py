"""Compare what ``local_update.py`` wrote on two machines."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

TOLERANCE = 1e-5
"""Largest norm of the difference between two changes, as a share of the change's own norm."""

Arrays = Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True)
class Comparison:
    """How one bundle's local update differs between two machines.

    Attributes:
        rows: whether the same rows of each table changed.
        delta: norm of the difference between the deltas, as a share of a delta's norm.
        private: the same of the changes of private parameters; 0 where there are none.
        message: what there is to say about the encoded bytes.
    """

    rows: bool
    delta: float
    private: float
    message: str

    @property
    def passed(self) -> bool:
        """Whether rows are equal and values within the tolerance; the bytes need not be equal."""
        return self.rows and self.delta <= TOLERANCE and self.private <= TOLERANCE

    def __str__(self) -> str:
        return (
            f"{'passed' if self.passed else 'FAILED'}: rows {'equal' if self.rows else 'DIFFER'}; "
            f"the delta differs by {self.delta:.1e} of its norm, the private parameters' change by "
            f"{self.private:.1e}; {self.message}"
        )


def compare(here: Arrays, there: Arrays) -> Comparison:
    """Compare two results of one bundle, as ``local_update.local_update`` gives them."""
    rows = [{k: v for k, v in arrays.items() if k.startswith("rows/")} for arrays in (here, there)]
    return Comparison(
        rows=rows[0].keys() == rows[1].keys()
        and all(np.array_equal(ids, rows[1][name]) for name, ids in rows[0].items()),
        delta=_difference(here, there, "delta/"),
        private=_difference(here, there, "private/"),
        message=_bytes_compared(here["message"], there["message"]),
    )


def _difference(here: Arrays, there: Arrays, prefix: str) -> float:
    shapes = [{k: v.shape for k, v in a.items() if k.startswith(prefix)} for a in (here, there)]
    if shapes[0] != shapes[1]:
        return np.inf
    if not shapes[0]:
        return 0.0
    mine, its = (
        np.concatenate([arrays[name].astype(np.float64).ravel() for name in shapes[0]])
        for arrays in (here, there)
    )
    return float(np.linalg.norm(mine - its) / np.linalg.norm(mine))


def _bytes_compared(here: NDArray[np.generic], there: NDArray[np.generic]) -> str:
    if len(here) != len(there):
        return f"the message has {len(here)} bytes here and {len(there)} there"
    return f"{np.count_nonzero(here != there) or 'none'} of the message's {len(here)} bytes differ"


def main(argv: Sequence[str] | None = None) -> None:
    """Print a line for each bundle; SystemExit says what is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("here", type=Path, help="file that was written on this machine")
    parser.add_argument("there", type=Path, help="file that was written on an aarch64 one")
    arguments = parser.parse_args(argv)
    with np.load(arguments.here) as here, np.load(arguments.there) as there:
        results = dict(here), dict(there)
    machines = [str(result.pop("machine")) for result in results]
    versions = [str(result.pop("versions")) for result in results]
    if machines[1] != "aarch64" or versions[0] != versions[1]:
        raise SystemExit(f"error: cannot compare {machines} with {versions}")
    bundles = [dict.fromkeys(name.partition("/")[0] for name in result) for result in results]
    if bundles[0] != bundles[1]:
        raise SystemExit(f"error: updates of {[*bundles[0]]} here, of {[*bundles[1]]} there")
    comparisons = {
        bundle: compare(*(_of(bundle, result) for result in results)) for bundle in bundles[0]
    }
    for bundle, comparison in comparisons.items():
        print(f"{bundle:8} {comparison}")
    if not all(comparison.passed for comparison in comparisons.values()):
        raise SystemExit(f"error: rows must be equal, and values to {TOLERANCE} of the norm")


def _of(bundle: str, result: Arrays) -> Arrays:
    start = f"{bundle}/"
    return {name.removeprefix(start): v for name, v in result.items() if name.startswith(start)}


if __name__ == "__main__":
    main()
