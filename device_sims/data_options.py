"""Which data a fleet trains on, as options of a command."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from device_sims.datasets import (
    Interactions,
    load_delimited,
    load_frappe,
    load_movielens,
    load_smartthings,
    synthesise,
    take_users,
)

__all__ = ["DATASETS", "add_data_options", "datasets_with", "load_data"]

SYNTHETIC_DEVICES = 200
DATASETS: Mapping[str, tuple[str, ...]] = {
    "synthetic": ("items", "mean_interactions", "drift_share", "drift_at"),
    "movielens": (),
    "frappe": ("context_columns", "feature_columns", "repeats"),
    "smartthings": ("context_columns", "feature_columns"),
    "csv": (
        *("user_column", "item_column", "time_column"),
        *("context_columns", "feature_columns", "repeats"),
    ),
}
"""The data sets by name, and which options each takes beside its file."""


def add_data_options(group: "argparse._ArgumentGroup") -> None:
    """Add the options that `load_data` reads."""
    group.add_argument(
        "--dataset", choices=tuple(DATASETS), default="synthetic", help="synthetic needs no file"
    )
    group.add_argument(
        "--data",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="the file; of smartthings all files of a country",
    )
    # None where nothing is given: each loader has defaults of its own.
    group.add_argument("--items", type=int, help="synthetic: size of the catalogue (400)")
    group.add_argument(
        "--mean-interactions", type=float, help="synthetic: mean interactions of a user (40)"
    )
    group.add_argument(
        "--drift-share", type=float, help="synthetic: share of the users whose taste changes (0)"
    )
    group.add_argument(
        "--drift-at", type=float, help="synthetic: when, as a share of the data's time (0.5)"
    )
    group.add_argument("--user-column", metavar="NAME", help="csv: the user column (user)")
    group.add_argument("--item-column", metavar="NAME", help="csv: the item column (item)")
    group.add_argument(
        "--time-column", metavar="NAME", help="csv: the time column; '' for file order (time)"
    )
    group.add_argument(
        "--context-columns",
        type=_names,
        metavar="NAME,NAME",
        help="csv, frappe, smartthings: columns with context of an interaction; '' for none "
        "(frappe: daytime, weekday, isweekend, homework, weather; smartthings: day_of_week, hour3)",
    )
    group.add_argument(
        "--feature-columns",
        type=_names,
        metavar="NAME,NAME",
        help="csv, frappe, smartthings: columns with features of an item; '' for none "
        "(frappe: cost; smartthings: device)",
    )
    group.add_argument(
        "--repeats",
        action="store_true",
        default=None,
        help="csv, frappe: keep repeated use of an item, and foresee the next action",
    )
    group.add_argument(
        "--skip-bad-lines", action="store_true", help="leave broken lines out instead of stopping"
    )


def load_data(arguments: argparse.Namespace) -> Interactions:
    """Load the data set and take as many of its users as there are to be devices.

    Raises:
        DatasetError: it cannot be loaded.
        ValueError: an option is missing, or does not go with the data set.
    """
    name, files, chosen = arguments.dataset, arguments.data or [], _chosen(arguments)
    if name == "synthetic":
        if files:
            raise ValueError("--data goes with --dataset movielens, frappe, smartthings or csv")
        users = arguments.devices or SYNTHETIC_DEVICES
        return synthesise(users=users, seed=arguments.seed, **chosen)
    if not files:
        raise ValueError(f"--dataset {name} needs --data FILE")
    if name != "smartthings" and len(files) > 1:
        raise ValueError(f"--dataset {name} is one file; {len(files)} are given")
    found = _load(name, files, {**chosen, "skip_bad_lines": arguments.skip_bad_lines})
    if found.cleaning.skipped_lines:
        print(f"{files[0]}: {found.cleaning.skipped_lines} broken lines left out")
    return take_users(found, arguments.devices or found.user_count, seed=arguments.seed)


def _load(name: str, files: list[Path], options: dict[str, Any]) -> Interactions:
    if name == "smartthings":
        return load_smartthings(files, **options)
    if name == "movielens":
        return load_movielens(files[0], **options)
    if name == "frappe":
        return load_frappe(files[0], **options)
    if "time_column" in options:
        options["time_column"] = options["time_column"] or None
    return load_delimited(files[0], **options)


def _chosen(arguments: argparse.Namespace) -> dict[str, Any]:
    """The given options of the loader, each of which must go with the data set."""
    known = dict.fromkeys(option for taken in DATASETS.values() for option in taken)
    chosen = {name: getattr(arguments, name) for name in known}
    given = {name: value for name, value in chosen.items() if value is not None}
    for name in given:
        if name not in DATASETS[arguments.dataset]:
            flag = f"--{name.replace('_', '-')}"
            raise ValueError(f"{flag} goes with --dataset {datasets_with(name)}")
    return given


def datasets_with(option: str) -> str:
    """The data sets whose loader takes an option, as a sentence names them."""
    return " or ".join(name for name, taken in DATASETS.items() if option in taken)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())
