"""One scenario with faults, run where and as often as may be: all must have one digest.

    python -m device_sims.bench.digests

It runs twice in one process, once with two that train beside it and once on a Ray cluster of this
machine. Prints how many digests there were beside the goal and writes `runs/bench/digests.json`.
"""

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from device_sims.bench.figures import Figure, publish
from device_sims.scenario import Scenario
from device_sims.simulation.pools import open_pool
from device_sims.simulation.workshop import Workshop

__all__ = ["WAYS", "figures", "measure"]

WAYS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "once": {"processes": 1},
        "again": {"processes": 1},
        "two processes": {"processes": 2},
        "Ray": {"ray": "local"},
    }
)
SCENARIO: Mapping[str, Any] = MappingProxyType(
    {
        "task": {"training": {"interval_s": 300.0}},
        "data": {"users": 60},
        "faults": {
            "lost": 0.1,
            "duplicated": 0.1,
            "delayed": 0.1,
            "agent_crash": 0.01,
            "aggregator_crash": 0.01,
        },
        "run": {"hours": 2.0},
    }
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and publish; 1 if the digests differ."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args(arguments)
    found = figures(measure(WAYS))
    publish("digests", found)
    return 0 if all(figure.met for figure in found) else 1


def measure(ways: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """The digest of each way.

    Args:
        ways: for each, what ``open_pool`` is told.

    Raises:
        ScenarioError: Ray is asked for, and is not installed or does not start.
    """
    scenario = Scenario.from_dict(SCENARIO, name="digests")
    found: dict[str, str] = {}
    for way, options in ways.items():
        with tempfile.TemporaryDirectory() as folder:
            outcome = Workshop(Path(folder), pool=partial(open_pool, **options)).run(scenario)
        found[way] = str(outcome.to_dict()["digest"])
        print(f"{way:14} {outcome.audit.created:,} updates, {found[way]}", flush=True)
    return found


def figures(digests: Mapping[str, str]) -> list[Figure]:
    """How many different ones there are, beside the goal."""
    return [
        Figure(
            figure="different digests of one scenario and seed",
            value=len(set(digests.values())),
            unit="",
            goal=1,
            at_least=False,
            compared_with=", ".join(f"{way} {digest[:8]}" for way, digest in digests.items()),
        )
    ]


if __name__ == "__main__":
    sys.exit(main())
