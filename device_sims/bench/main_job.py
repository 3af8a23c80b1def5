"""The main job on MovieLens-100K: 943 agents over MQTT, 40 passes, the fair protocol.

Prints each figure beside its goal and writes `runs/bench/main.json`.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from device_sims.bench.figures import Figure, publish
from device_sims.command import main as fleet

OUT = Path("runs/bench/main")
DATA = Path(__file__).parents[3] / "shared" / "data" / "ml-100k" / "ratings.dat"
DEVICES, PASSES = 943, 40


def main() -> int:
    """Run the job, then measure and publish."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA, help="MovieLens-100K, any format")
    data = parser.parse_args().data
    if not data.is_file():
        print(f"skipped: {data} is not there; give DATA=path/to/ml-100k/u.data", file=sys.stderr)
        return 0
    job = ["demo", "--dataset", "movielens", "--data", str(data), "--out", str(OUT)]
    status = fleet([*job, "--devices", str(DEVICES), "--passes", str(PASSES)])
    if status:
        return status
    publish("main", figures(json.loads((OUT / "report.json").read_text())))
    return 0


def figures(report: Mapping[str, Any]) -> list[Figure]:
    """The figures of one run's `report.json`."""
    final, popular = report["quality"]["final"], report["quality"]["popularity"]
    uplink, wall_seconds = report["uplink_bytes"], report["wall_seconds"]
    return [
        Figure(
            figure="test HR@10, round picked on validation",
            value=final["hr_at_10"],
            unit="",
            goal=0.62,
            at_least=True,
            compared_with=f"popularity {popular['hr_at_10']:.3f}; centralised .658 before",
        ),
        Figure(
            figure="test NDCG@10, round picked on validation",
            value=final["ndcg_at_10"],
            unit="",
            goal=0.35,
            at_least=True,
            compared_with=f"popularity {popular['ndcg_at_10']:.3f}; centralised .376 before",
        ),
        Figure(
            figure="mean size of an update, envelope included",
            value=uplink["mean"],
            unit="bytes",
            goal=1_024,
            at_least=False,
            compared_with=f"dense table {uplink['dense_mean']:,} bytes",
        ),
        Figure(
            figure="wall time of the run",
            value=wall_seconds,
            unit="s",
            goal=600,
            at_least=False,
            compared_with=f"{report['updates']['accepted']:,} updates",
        ),
    ]


if __name__ == "__main__":
    sys.exit(main())
