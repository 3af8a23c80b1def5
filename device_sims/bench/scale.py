"""100,000 devices and a million updates under a virtual clock, in one process and its helpers.

Prints each figure beside its goal and writes `runs/bench/scale.json`. With fewer devices or updates
the time goal is the same share of the whole: what an update may cost does not depend on them.
"""

import argparse
import resource
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from multiprocessing import active_children
from pathlib import Path

from tqdm import tqdm

from device_sims.bench.figures import Figure, publish
from device_sims.folder import run_folder
from device_sims.scenario import Scenario, read_scenario
from device_sims.simulation.pools import open_pool
from device_sims.simulation.report import table, write_outcome
from device_sims.simulation.workshop import Workshop
from edge_agent.runtimes.trial import memory_bytes

__all__ = ["shortened"]

SCENARIO = Path(__file__).parents[1] / "scenarios" / "hundred_thousand.toml"
OUT = Path("runs/bench/scale")
UPDATES, WALL_S, MEMORY_MB = 1_000_000, 30 * 60, 2_000


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it, measure and publish; 1 if an invariant is broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, help="so many devices; default: the scenario's")
    parser.add_argument("--updates", type=int, default=UPDATES, help="about so many; a million")
    parser.add_argument("--processes", type=int, default=2, help="that train beside the clock's")
    parser.add_argument("--out", type=Path, default=OUT, help="folder to write")
    given = parser.parse_args(arguments)
    scenario = shortened(read_scenario(SCENARIO), devices=given.devices, updates=given.updates)
    with run_folder(given.out) as out, tqdm(total=100, unit="%", disable=None) as bar:
        resident: dict[int, int] = {}

        def progress(share: float, updates: int) -> None:
            bar.update(round(100 * share) - bar.n)
            bar.set_postfix_str(f"{updates:,} updates")
            for child in active_children():
                # One that has just ended has no memory any more.
                with suppress(OSError):
                    resident[child.pid or 0] = memory_bytes("VmHWM", child.pid or "self")

        workshop = Workshop(out, pool=partial(open_pool, processes=given.processes))
        workshop.prepare(scenario)
        wall_s, cpu_s = time.monotonic(), _cpu_s()
        outcome = workshop.run(scenario, progress=progress)
        wall_s, cpu_s = time.monotonic() - wall_s, _cpu_s() - cpu_s
        write_outcome(outcome, out / "outcome.json")
    print(table(outcome))
    updates, peak_mb = outcome.audit.created, (memory_bytes("VmHWM") + sum(resident.values())) / 1e6
    size = f"{outcome.devices:,} devices, {updates:,} updates"
    publish(
        "scale",
        [
            Figure(
                figure="wall time",
                value=wall_s,
                unit="s",
                goal=WALL_S * updates / UPDATES,
                at_least=False,
                compared_with=f"{size}; {1e3 * cpu_s / updates:.2f} ms of CPU an update",
            ),
            Figure(
                figure="memory of all processes, each at its largest",
                value=peak_mb,
                unit="MB",
                goal=MEMORY_MB,
                at_least=False,
                compared_with=f"{len(resident)} beside the clock's",
            ),
        ],
    )
    return 1 if outcome.audit.broken else 0


def shortened(scenario: Scenario, *, devices: int | None, updates: int) -> Scenario:
    """A part of a scenario, in which an hour brings the aggregator as many updates as in the whole.

    Fewer devices train so much more often, and come and go so much more often.

    Args:
        scenario: the whole.
        devices: how many; None for all.
        updates: about how many.
    """
    data, model, fleet, run = scenario.data, scenario.model, scenario.fleet, scenario.run
    most = devices or data.users
    share = most / data.users
    training = replace(model.training, interval_s=model.training.interval_s * share)
    return replace(
        scenario,
        data=replace(data, users=most),
        model=replace(model, training=training),
        fleet=replace(
            fleet,
            online_s=fleet.online_s * share,
            offline_s=fleet.offline_s * share,
            new_within_h=fleet.new_within_h * share,
        ),
        run=replace(run, hours=run.hours * updates / UPDATES),
    )


def _cpu_s() -> float:
    used = [resource.getrusage(of) for of in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


if __name__ == "__main__":
    sys.exit(main())
