"""``rivulet-fleet simulate`` and ``rivulet-fleet torture``."""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from device_sims.folder import run_folder

if TYPE_CHECKING:
    from device_sims.scenario import Scenario
    from device_sims.simulation.outcome import Outcome
    from device_sims.simulation.training import Kit, Pool
    from device_sims.simulation.workshop import Workshop

# The simulator brings the aggregator along: it is imported where it is needed, for `--help` and the
# other commands should not wait for that.

__all__ = ["add_commands"]


Command = Callable[[argparse.Namespace], int]


def add_commands(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
) -> dict[str, Command]:
    """Add the two commands; gives for each what runs it and returns its exit code."""
    simulated = commands.add_parser(
        "simulate",
        help="run a scenario under a virtual clock",
        description="A discrete-event simulation with the production agent, codec, ledger and "
        "merge: only time, network and power are simulated. The same scenario and seed give the "
        "same digest.",
    )
    simulated.add_argument("scenario", nargs="?", type=Path, help="a TOML file")
    simulated.add_argument("--seed", type=int, help="instead of the scenario's")
    simulated.add_argument(
        "--out", type=Path, default=Path("runs/simulate"), help="folder to write"
    )
    simulated.add_argument(
        "--example", action="store_true", help="print a scenario with every key, and stop"
    )
    _add_pool_options(simulated)
    tortured = commands.add_parser(
        "torture",
        help="random scenarios and faults; whatever breaks is shrunk to a small scenario",
        description="Draws scenarios and faults at random and checks after each that nothing "
        "accepted was lost or applied twice, that the model is what the ledger makes of the "
        "bundle, that every update was answered in the end, and that no message held private "
        "parameters. A failure is shrunk and written as a scenario that repeats it.",
    )
    tortured.add_argument("--hours", type=float, default=1.0, help="wall time to go on for")
    tortured.add_argument("--seed", type=int, default=0, help="of the first scenario")
    tortured.add_argument("--like", type=Path, help="a scenario to vary; default: a small one")
    tortured.add_argument("--out", type=Path, default=Path("runs/torture"), help="folder to write")
    _add_pool_options(tortured)
    return {"simulate": _simulate, "torture": _torture}


def _add_pool_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--processes",
        type=int,
        default=1,
        help="that train and encode beside the one with the clock; 1 is that one itself (default)",
    )
    parser.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="train and encode on a Ray cluster instead: its address, `auto` for the one that is "
        "running, `local` to start one on this machine. The digest is the same wherever this is "
        "done, among machines of one kind",
    )


def _pool(arguments: argparse.Namespace) -> "Callable[[Kit], AbstractContextManager[Pool]]":
    from device_sims.scenario import ScenarioError
    from device_sims.simulation.pools import open_pool

    if arguments.processes < 1:
        raise ScenarioError(f"--processes is {arguments.processes}; expected at least 1")
    if arguments.ray is not None and arguments.processes > 1:
        raise ScenarioError("--processes goes without --ray, which uses all of its cluster")
    return partial(open_pool, processes=arguments.processes, ray=arguments.ray)


def _simulate(arguments: argparse.Namespace) -> int:
    from device_sims.scenario import ScenarioError, example, read_scenario
    from device_sims.simulation.report import table, write_outcome
    from device_sims.simulation.workshop import Workshop

    if arguments.example:
        print(example(), end="")
        return 0
    if arguments.scenario is None:
        raise ScenarioError("no scenario is given; `rivulet-fleet simulate --example` prints one")
    scenario = read_scenario(arguments.scenario)
    if arguments.seed is not None:
        scenario = scenario.with_seed(arguments.seed)
    with run_folder(arguments.out) as out:
        workshop = Workshop(out, pool=_pool(arguments))
        bar = tqdm(
            total=100, unit="%", desc=scenario.name, disable=not sys.stderr.isatty(), leave=False
        )

        def progress(share: float, updates: int) -> None:
            bar.update(round(100 * share) - bar.n)
            bar.set_postfix_str(f"{updates:,} updates")

        outcome = workshop.run(scenario, progress=progress)
        bar.close()
        digest = write_outcome(outcome, out / "outcome.json")
        print(table(outcome), f"digest       {digest}", sep="\n")
        print(f"written: {out / 'outcome.json'}")
    return 1 if outcome.audit.broken else 0


def _torture(arguments: argparse.Namespace) -> int:
    from device_sims.scenario import Scenario, ScenarioError, read_scenario
    from device_sims.simulation.torture import draw_scenario
    from device_sims.simulation.workshop import Workshop

    if arguments.hours <= 0.0:
        raise ScenarioError(f"--hours is {arguments.hours:g}; expected a number above 0")
    like = read_scenario(arguments.like) if arguments.like else Scenario.from_dict(SMALL, name="")
    deadline, seed = time.monotonic() + 3600.0 * arguments.hours, arguments.seed
    faults, runs, updates = Counter[str](), 0, 0
    with run_folder(arguments.out) as out:
        workshop = Workshop(out, pool=_pool(arguments))
        try:
            while time.monotonic() < deadline or not runs:
                scenario = draw_scenario(like, seed)
                outcome = _run_whole(workshop, scenario)
                runs, seed, updates = runs + 1, seed + 1, updates + outcome.audit.created
                faults.update(outcome.faults)
                print(_line(outcome), flush=True)
                if outcome.audit.broken:
                    return _failed(scenario, outcome, workshop, out)
        except KeyboardInterrupt:
            print("\nstopped", flush=True)
    counted = ", ".join(f"{count:,} {kind}" for kind, count in sorted(faults.items()))
    print(f"{runs:,} scenarios, {updates:,} updates, no invariant broken; faults: {counted}")
    return 0


def _failed(scenario: "Scenario", outcome: "Outcome", workshop: "Workshop", out: Path) -> int:
    from device_sims.scenario import to_toml
    from device_sims.simulation.torture import shrink

    print(f"BROKEN: {', '.join(outcome.audit.broken)}; looking for a smaller scenario", flush=True)
    path, broken = out / "failure.toml", tuple(outcome.audit.broken)
    path.write_text(to_toml(scenario), encoding="utf-8")
    try:
        failure = shrink(scenario, broken, partial(_run_whole, workshop))
    except KeyboardInterrupt:
        print("\nstopped before a smaller one was found", flush=True)
    else:
        broken = failure.broken
        path.write_text(to_toml(failure.scenario), encoding="utf-8")
    print(f"{', '.join(broken)}: repeat it with `rivulet-fleet simulate {path}`")
    return 1


def _run_whole(workshop: "Workshop", scenario: "Scenario") -> "Outcome":
    """Run a scenario; Ctrl-C, at which a run ends early and in order, is raised after it."""
    done = 0.0

    def progress(share: float, _updates: int) -> None:
        nonlocal done
        done = share

    outcome = workshop.run(scenario, progress=progress)
    if round(done, 6) < 1.0:
        raise KeyboardInterrupt
    return outcome


def _line(outcome: "Outcome") -> str:
    return (
        f"seed {outcome.seed}: {outcome.audit.created:,} updates, "
        f"{sum(outcome.faults.values()):,} faults, "
        f"{'BROKEN: ' + ', '.join(outcome.audit.broken) if outcome.audit.broken else 'all hold'}"
    )


SMALL = {
    "name": "torture",
    "task": {"training": {"interval_s": 300.0}},
    "data": {"users": 12},
    "run": {"hours": 2.0, "evaluate_every_h": 0.0},
}
