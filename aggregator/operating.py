"""The commands ``verify`` and ``refold``: they read the ledger beside a running service."""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from tqdm import tqdm

from aggregator.blobs import Blobs, open_blobs
from aggregator.ledger import (
    Exclusion,
    LedgerError,
    LineageRecord,
    Past,
    TaskRecord,
    VersionRecord,
    connect,
    is_current,
)
from aggregator.refolding import refold
from aggregator.settings import SettingsError, load_storage
from aggregator.verification import Verification, verify
from wire.manifest import Manifest

__all__ = ["add_commands", "seconds_of"]

CACHE_BYTES = 1 << 30
VERIFY = """\
Makes every version of a task again from the ledger, from the bundle's initial parameters on, and
compares its digest, and its snapshot where there is one, with what was recorded. No snapshot is
believed before it was compared. Where payloads were dropped (retention.keep_payload_days) it begins
with the snapshot that stands for them, and says so.

It only reads, so a service may run on the same data. It takes as long as merging did, and the
memory of two models. Exit code 0: all that could be compared is the same. 1: something differs, or
could not be compared although --from-start wished it.
"""
REFOLD = """\
Folds a task's newest version again without some updates: those of some devices, those received in
some time, or those of some devices in some time. The result is a lineage: what it would be had they
never come, the other updates meeting in the same merges. Says what is different. Nothing that
devices get changes until `rivulet-aggregator promote` makes it the next version.

A service may run on the same data: what is written is one file, and then one row that names it.
Interrupt it at any time. It takes as long as the merges since the first such update did, and the
memory of three models.
"""
TIME = "TIME is seconds since 1970 or as in 2026-11-28T12:00+01:00; without an offset it is UTC."


def add_commands(commands: Any) -> None:
    """Add the commands to the parser of ``rivulet-aggregator``."""
    raw = argparse.RawDescriptionHelpFormatter
    verifying = commands.add_parser(
        "verify",
        help="make versions again from the ledger and compare them",
        description=VERIFY,
        formatter_class=raw,
    )
    verifying.set_defaults(run=_verify)
    _add_storage(verifying)
    add = verifying.add_argument
    add("--task", metavar="TASK", help="only this task (default: every task)")
    add("--version", type=int, metavar="N", help="only version N and what it is made of")
    add(
        "--from-start",
        action="store_true",
        help="fail where something cannot be made again, instead of beginning with a snapshot",
    )
    refolding = commands.add_parser(
        "refold",
        help="fold a task again without some updates, and say what changes",
        description=REFOLD,
        epilog=TIME,
        formatter_class=raw,
    )
    refolding.set_defaults(run=_refold)
    _add_storage(refolding)
    add = refolding.add_argument
    add("--task", metavar="TASK", required=True, help="which task")
    add(
        "--without-device",
        action="append",
        dest="devices",
        default=[],
        metavar="DEVICE",
        help="leave out the updates of this device; may be repeated (default: of all devices)",
    )
    add("--since", type=seconds_of, metavar="TIME", help="only updates received from then on")
    add("--until", type=seconds_of, metavar="TIME", help="only updates received before then")


def seconds_of(text: str) -> float:
    """Seconds since 1970 of a number or an ISO 8601 time; refuses the rest with ValueError."""
    try:
        return float(text)
    except ValueError:
        when = datetime.fromisoformat(text)
    return (when if when.tzinfo else datetime.fromisoformat(f"{text}+00:00")).timestamp()


def _add_storage(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--config", type=Path, metavar="FILE", help="the service's TOML file with settings")
    add("--data", metavar="DIR", help="the service's data folder")
    add("--database", metavar="URL", help="the service's database, if it is not in DIR")
    add("--blobs", metavar="URL", help="the service's blobs, if they are not in DIR")
    add("--verbose", action="store_true", help="log more")


@dataclass(frozen=True, slots=True)
class _Site:
    """What a service keeps, opened beside it."""

    past: Past
    blobs: Blobs
    tasks: list[TaskRecord]

    def task(self, name: str) -> TaskRecord:
        found = [task for task in self.tasks if task.task == name]
        if not found:
            known = ", ".join(task.task for task in self.tasks) or "none"
            raise SettingsError(f"task is {name!r}; there are {known}")
        return found[0]


@contextmanager
def _opened(arguments: argparse.Namespace) -> Iterator[_Site]:
    flags = {name: getattr(arguments, name) for name in ("data", "database", "blobs")}
    storage = load_storage(arguments.config, os.environ, flags)
    database = connect(storage.database)
    try:
        if not is_current(database):
            raise LedgerError(
                "the database is of other software than this; verify and refold with that which "
                "serves it, or start `rivulet-aggregator serve` once to bring it up to date"
            )
        past = Past(database)
        with tempfile.TemporaryDirectory(prefix="rivulet-") as folder:
            blobs = open_blobs(storage.blobs, cache=Path(folder), cache_bytes=CACHE_BYTES)
            yield _Site(past, blobs, past.tasks())
    finally:
        database.dispose()


def _verify(arguments: argparse.Namespace) -> int:
    with _opened(arguments) as site:
        if arguments.version is not None and arguments.task is None and len(site.tasks) != 1:
            raise SettingsError("version is given but task is not; give --task too")
        tasks = site.tasks if arguments.task is None else [site.task(arguments.task)]
        good = [_verified(site, task, arguments) for task in tasks]
    return 0 if all(good) else 1


def _verified(site: _Site, task: TaskRecord, arguments: argparse.Namespace) -> bool:
    total = site.past.newest_version(task.task).version
    total = total if arguments.version is None else arguments.version
    with _progress(f"verifying {task.task[:8]}", total) as on_version:
        found = verify(
            site.past, site.blobs, task, version=arguments.version, on_version=on_version
        )
    for sentence in found.differences:
        print(f"task {task.task}: {sentence}")
    for sentence in found.unreachable:
        print(f"task {task.task}: not verified: {sentence}")
    print(f"task {task.task}: {_result(found)}")
    return not found.differences and not (arguments.from_start and found.unreachable)


def _result(found: Verification) -> str:
    compared = f"{found.versions} versions and {found.snapshots} snapshots were compared"
    if found.differences:
        return f"{compared}, up to version {found.last}; {len(found.differences)} differences"
    return f"{compared}, up to version {found.last}; they are as recorded"


def _refold(arguments: argparse.Namespace) -> int:
    try:
        without = Exclusion(
            devices=tuple(arguments.devices), since=arguments.since, until=arguments.until
        )
    except ValueError as error:
        raise SettingsError(
            f"{error}: --without-device DEVICE, --since TIME, --until TIME"
        ) from None
    with _opened(arguments) as site:
        task = site.task(arguments.task)
        specs = Manifest.from_json(task.manifest).federated
        total = site.past.newest_version(task.task).version
        with _progress(f"folding {task.task[:8]}", total) as on_version:
            made = refold(site.past, site.blobs, task.task, specs, without, on_version=on_version)
        lineage = made.keep(site.past, site.blobs, task=task.task, at=time.time())
    _describe(lineage, without)
    return 0


def _describe(lineage: LineageRecord, without: Exclusion) -> None:
    changes = lineage.changes
    print(f"lineage {lineage.id}: version {lineage.version} with {without.describe()} left out")
    print(
        f"  {changes['updates']} updates of {changes['versions']} versions, the first of them "
        f"version {changes['first_version']}"
    )
    emptied = changes["emptied_versions"]
    if emptied:
        shown = ", ".join(map(str, emptied[:20])) + (", ..." if len(emptied) > 20 else "")
        print(f"  {changes['emptied_count']} versions lost all their updates: {shown}")
    for name, found in changes["parameters"].items():
        print(f"  {name}: distance {found['distance']:.6g}, cosine {found['cosine']:.6f}")
    print(
        f"make it the next version: rivulet-aggregator promote --url URL --task {lineage.task} "
        f"--lineage {lineage.id}"
    )


@contextmanager
def _progress(what: str, total: int) -> Iterator[Callable[[VersionRecord], None]]:
    """A bar up to a version, where stderr is a terminal."""
    with tqdm(total=total, desc=what, unit="version", disable=not sys.stderr.isatty()) as bar:

        def show(record: VersionRecord) -> None:
            bar.update(max(0, record.version - bar.n))

        yield show
