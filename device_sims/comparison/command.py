"""``rivulet-fleet compare``: scenarios times seeds, and one report on all of them."""

import argparse
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from device_sims.folder import run_folder

if TYPE_CHECKING:
    from device_sims.comparison.pool import Pool
    from device_sims.comparison.records import Records
    from device_sims.comparison.study import Study

# The simulator brings the aggregator along: it is imported where it is needed, for `--help` and the
# other commands should not wait for that.

__all__ = ["add_command"]

TARGET_SHARE = 0.95
EPILOG = """examples:
  rivulet-fleet compare a.toml b.toml --seeds 5 --processes 2
      every scenario with the seeds 0 to 4, two runs at a time
  rivulet-fleet compare device_sims/scenarios/1-asynchronous.toml --data-dir data
      every combination of a file's grid; its data files are looked for in data/
  rivulet-fleet compare a.toml b.toml --seeds 10 --out runs/compare
      after the first command: runs the five seeds that are missing

Each finished run is kept in --out, so the same command goes on where it was stopped. What was run
by other code is used, too, and the report says so; --fresh repeats everything.
"""


def add_command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
) -> Callable[[argparse.Namespace], int]:
    """Add the command; gives what runs it and returns its exit code."""
    compare = commands.add_parser(
        "compare",
        help="run scenarios with several seeds and report on them side by side",
        description="Simulates every scenario with every seed and writes report.html (one file, "
        "which needs no network), report.json and report.md: quality against virtual time, bytes "
        "and energy, time to a target, staleness, and who took part, with confidence intervals "
        "over the seeds.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    compare.add_argument(
        "scenarios", nargs="+", type=Path, help="TOML files, or folders of them; order is kept"
    )
    compare.add_argument("--seeds", type=int, default=3, help="how many, from 0 on (default: 3)")
    compare.add_argument(
        "--processes", type=int, default=1, help="runs at a time on this machine (default: 1)"
    )
    compare.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="run on a Ray cluster instead, as many at a time as it has processors: its address, "
        "`auto` for the one that is running, `local` to start one on this machine",
    )
    compare.add_argument(
        "--data-dir",
        type=Path,
        help="where relative data files and traces are; default: this folder",
    )
    aim = compare.add_mutually_exclusive_group()
    aim.add_argument("--target-ndcg", type=float, help="NDCG@10 whose time and cost are asked for")
    aim.add_argument(
        "--target-share",
        type=float,
        default=TARGET_SHARE,
        help="or a share of the best scenario's (default: %(default)s)",
    )
    compare.add_argument(
        "--centralised",
        action="store_true",
        help="train the first scenario's recommender of each data set on all data in one place too",
    )
    compare.add_argument(
        "--out", type=Path, default=Path("runs/compare"), help="folder to write, and to go on in"
    )
    compare.add_argument("--fresh", action="store_true", help="forget what --out holds")
    compare.add_argument(
        "--insert",
        type=Path,
        metavar="FILE",
        help="put the tables into a Markdown file, too: between <!-- compare NAME --> and "
        "<!-- end NAME -->, where NAME is the name of --out",
    )
    return _compare


def _compare(arguments: argparse.Namespace) -> int:
    from device_sims.comparison.grid import find_scenarios
    from device_sims.comparison.records import Records
    from device_sims.comparison.report import as_markdown, check_place, insert, write_report
    from device_sims.comparison.study import Study
    from device_sims.comparison.summary import Target, summarise
    from device_sims.simulation.workshop import Workshop

    _check(arguments)
    scenarios = find_scenarios(arguments.scenarios, arguments.data_dir)
    target = Target(share=arguments.target_share, ndcg=arguments.target_ndcg)
    if arguments.insert:
        # Before anything starts: that there is no place for them shall not come up in an hour.
        check_place(arguments.out.name, arguments.insert)
    with run_folder(arguments.out, keep=not arguments.fresh) as out:
        study = Study(
            scenarios,
            seeds=arguments.seeds,
            centralised=arguments.centralised,
            records=(records := Records(out / "finished")),
            workshop=Workshop(out / "under-way"),
        )
        failures = _run(study, records, _pool(arguments, out / "under-way"), out)
        document = summarise(study.panels(), target)
        write_report(document, out, title=f"{len(scenarios)} scenarios compared")
        print(as_markdown(document), end="")
        print(f"\nwritten: {out / 'report.html'}, report.json and report.md beside it")
        if arguments.insert:
            insert(as_markdown(document), out.name, arguments.insert)
    return 1 if failures or study.missing else 0


def _pool(arguments: argparse.Namespace, folder: Path) -> "Pool":
    from device_sims.comparison.pool import LocalPool
    from device_sims.comparison.ray_pool import RayPool

    if arguments.ray is None:
        return LocalPool(arguments.processes, folder)
    return RayPool(arguments.ray)


def _check(arguments: argparse.Namespace) -> None:
    from device_sims.scenario import ScenarioError

    if arguments.ray is not None and arguments.processes > 1:
        raise ScenarioError("--processes goes without --ray, which uses all of its cluster")
    for name, value in (("--seeds", arguments.seeds), ("--processes", arguments.processes)):
        if value < 1:
            raise ScenarioError(f"{name} is {value}; expected at least 1")
    for name, value in (
        ("--target-share", arguments.target_share),
        ("--target-ndcg", arguments.target_ndcg),
    ):
        if value is not None and not 0.0 < value <= 1.0:
            raise ScenarioError(f"{name} is {value:g}; expected a number above 0 and at most 1")


def _run(study: "Study", records: "Records", pool: "Pool", out: Path) -> int:
    """Do what is missing and keep it; gives how many runs failed. Ctrl-C ends it early."""
    from device_sims.comparison.bar import Bar
    from device_sims.comparison.pool import Done, Failed
    from device_sims.interrupts import undisturbed

    failures = 0
    with Bar(study.total, study.missing) as bar:
        try:
            with closing(pool.run(study.works())) as happening:
                for news in happening:
                    with undisturbed():
                        if isinstance(news, Done):
                            records.keep(news.key, news.result)
                        elif isinstance(news, Failed):
                            failures += 1
                            trace = out / f"failed-{news.key}.txt"
                            trace.write_text(news.trace, encoding="utf-8")
                        bar.show(news)
        except KeyboardInterrupt:
            bar.say(
                f"stopped: {study.missing} of {study.total} runs are missing; the same command "
                "goes on with them"
            )
    return failures
