"""The command ``rivulet-fleet``: run a whole fleet on this machine."""

import argparse
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from device_sims.brokers import BrokerError
from device_sims.datasets import (
    DatasetError,
    Interactions,
    load_delimited,
    load_movielens,
    synthesise,
    take_users,
)
from device_sims.demo import DemoSettings, Model, run_demo
from device_sims.fleet import FleetError, FleetPlan
from device_sims.folder import FolderError
from device_sims.processes import ProcessError
from edge_agent.errors import AgentError
from wire.errors import WireError
from wire.policy import CodecMode, CodecPolicy, TrainingPolicy

__all__ = ["main"]

EXIT_FAILED = 1
EXIT_USAGE = 2
SYNTHETIC_DEVICES = 200

# What trains well on data of each size; measured, see the figures in the README. Options override.
SMALL: Mapping[str, Any] = {
    "passes": 10,
    "concurrency": 40,
    "dimension": 16,
    "l2": 0.005,
    "learning_rate": 0.1,
    "epochs": 2,
    "server_learning_rate": 1.0,
    "announce_interval": 1.0,
}
LARGE: Mapping[str, Any] = {
    "passes": 40,
    "concurrency": 80,
    "dimension": 32,
    "l2": 0.01,
    "learning_rate": 0.04,
    "epochs": 1,
    "server_learning_rate": 2.0,
    # Every announcement goes to every device: in a large fleet that is most of the traffic.
    "announce_interval": 3.0,
}

EPILOG = """examples:
  rivulet-fleet demo
      200 devices on built-in data, about a minute
  rivulet-fleet demo --dataset movielens --data ml-100k/u.data --passes 40
      one device for each of the 943 users
  rivulet-fleet demo --dataset csv --data events.csv --user-column who --item-column what
  rivulet-fleet demo --broker mqtt://localhost:1883 --keep

Two defaults in brackets are for the built-in data, and for data from a file.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: the arguments; those of the process if None.

    Returns:
        0 if done, 1 if it failed, 2 if an argument is wrong.
    """
    arguments = _parser().parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        interactions = _interactions(arguments)
        settings = _settings(arguments)
    except (DatasetError, WireError, ValueError, OSError) as error:
        return _fail(error, EXIT_USAGE)
    try:
        run_demo(settings, interactions)
    except FolderError as error:
        return _fail(error, EXIT_USAGE)
    except (AgentError, BrokerError, FleetError, ProcessError, OSError) as error:
        return _fail(error, EXIT_FAILED)
    except KeyboardInterrupt:
        return _fail("stopped", EXIT_FAILED)
    return 0


def _fail(error: object, code: int) -> int:
    print(f"rivulet-fleet: error: {error}", file=sys.stderr)
    return code


def _interactions(arguments: argparse.Namespace) -> Interactions:
    """Load the data set and take as many of its users as there are to be devices."""
    if arguments.dataset == "synthetic":
        if arguments.data is not None:
            raise ValueError("--data goes with --dataset movielens or csv")
        return synthesise(users=arguments.devices or SYNTHETIC_DEVICES, seed=arguments.seed)
    if arguments.data is None:
        raise ValueError(f"--dataset {arguments.dataset} needs --data FILE")
    if arguments.dataset == "movielens":
        found = load_movielens(arguments.data, skip_bad_lines=arguments.skip_bad_lines)
    else:
        found = load_delimited(
            arguments.data,
            user_column=arguments.user_column,
            item_column=arguments.item_column,
            time_column=arguments.time_column or None,
            skip_bad_lines=arguments.skip_bad_lines,
        )
    if found.cleaning.skipped_lines:
        print(f"{arguments.data}: {found.cleaning.skipped_lines} broken lines left out")
    return take_users(found, arguments.devices or found.user_count, seed=arguments.seed)


def _settings(arguments: argparse.Namespace) -> DemoSettings:
    for name, value in (SMALL if arguments.dataset == "synthetic" else LARGE).items():
        if getattr(arguments, name) is None:
            setattr(arguments, name, value)
    for name in ("passes", "concurrency"):
        if getattr(arguments, name) < 1:
            raise ValueError(f"--{name} is {getattr(arguments, name)}; expected at least 1")
    if arguments.update_time <= 0 or arguments.update_time_sigma < 0:
        raise ValueError("--update-time must be above 0 and --update-time-sigma at least 0")
    return DemoSettings(
        out=arguments.out,
        broker=arguments.broker,
        model=Model(
            dimension=arguments.dimension,
            loss=arguments.loss,
            l2=arguments.l2,
            training=TrainingPolicy(
                learning_rate=arguments.learning_rate,
                epochs=arguments.epochs,
                batch_size=arguments.batch_size,
                negatives=arguments.negatives,
            ),
            codec=CodecPolicy(
                mode=arguments.codec,
                bits=arguments.bits,
                density=arguments.density,
                rank=arguments.rank,
            ),
        ),
        plan=FleetPlan(
            passes=arguments.passes,
            concurrency=arguments.concurrency,
            median_update_s=arguments.update_time,
            sigma=arguments.update_time_sigma,
            seed=arguments.seed,
        ),
        service={
            "rule.buffer_size": arguments.buffer,
            "rule.row_correction": arguments.row_correction,
            "rule.server_learning_rate": arguments.server_learning_rate,
            "announce_interval_s": arguments.announce_interval,
        },
        keep=arguments.keep,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rivulet-fleet", description="Run a fleet of Rivulet agents on this machine."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    demo = commands.add_parser(
        "demo",
        help="export, start a broker and an aggregator, train a fleet, write a report",
        description="The main job, end to end. Every device is a real agent with its own MQTT "
        "connection and its own storage; nothing on the way is simulated but the time that a "
        "local update takes.",
        epilog=EPILOG
        + "\nTwo defaults in brackets: for the built-in data, and for data from a file.",
        formatter_class=_HelpFormatter,
    )
    _add_data(demo.add_argument_group("data"))
    _add_fleet(demo.add_argument_group("fleet"))
    _add_model(demo.add_argument_group("model and local training"))
    _add_service(demo.add_argument_group("services"))
    return parser


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Examples as they are written, and the default of each option that has one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None else super()._get_help_string(action)


def _add_data(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--dataset",
        choices=("synthetic", "movielens", "csv"),
        default="synthetic",
        help="synthetic needs no file",
    )
    group.add_argument("--data", type=Path, help="the file, for movielens and csv")
    group.add_argument("--user-column", default="user", help="csv: name of the user column")
    group.add_argument("--item-column", default="item", help="csv: name of the item column")
    group.add_argument(
        "--time-column", default="time", help="csv: name of the time column; '' for file order"
    )
    group.add_argument(
        "--skip-bad-lines", action="store_true", help="leave broken lines out instead of stopping"
    )


def _add_fleet(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--devices", type=int, help="devices, one for each user (default: all users; synthetic 200)"
    )
    group.add_argument("--passes", type=int, help="local updates of each device (10; data: 40)")
    group.add_argument("--concurrency", type=int, help="devices at work at a time (40; data: 80)")
    group.add_argument(
        "--update-time", type=float, default=0.1, help="median seconds of a local update"
    )
    group.add_argument(
        "--update-time-sigma", type=float, default=0.5, help="spread of that time's logarithm"
    )
    group.add_argument("--seed", type=int, default=0, help="of data, order, times and sampling")


def _add_model(group: argparse._ArgumentGroup) -> None:
    training, codec = TrainingPolicy(), CodecPolicy()
    group.add_argument("--dimension", type=int, help="length of the vectors (16; data: 32)")
    group.add_argument("--loss", choices=("bce", "bpr"), default="bce", help="what is minimised")
    group.add_argument("--l2", type=float, help="decay of the user's vector (0.005; data: 0.01)")
    group.add_argument("--learning-rate", type=float, help="of the local SGD (0.1; data: 0.04)")
    group.add_argument(
        "--epochs", type=int, help="passes over the history in an update (2; data: 1)"
    )
    group.add_argument("--batch-size", type=int, default=training.batch_size, help="samples a step")
    group.add_argument(
        "--negatives", type=int, default=training.negatives, help="sampled for each positive"
    )
    group.add_argument(
        "--codec", choices=[str(mode) for mode in CodecMode], default=codec.mode, help="of deltas"
    )
    group.add_argument("--bits", type=int, default=codec.bits, help="bits a value")
    group.add_argument("--density", type=float, default=codec.density, help="top-k: share kept")
    group.add_argument("--rank", type=int, default=codec.rank, help="low-rank: rank")


def _add_service(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--broker",
        default="auto",
        help="mosquitto, embedded, mqtt://host:port, or auto: mosquitto where it is installed",
    )
    group.add_argument("--buffer", type=int, default=20, help="updates that make a version")
    group.add_argument(
        "--server-learning-rate",
        type=float,
        help="factor on a merged delta; above 1 makes up for what staleness takes (1; data: 2)",
    )
    group.add_argument(
        "--row-correction",
        choices=("none", "touched"),
        default="touched",
        help="average an item row over the whole buffer, or over the updates that touch it",
    )
    group.add_argument(
        "--announce-interval",
        type=float,
        help="least seconds between announcements (1; data: 3)",
    )
    group.add_argument("--out", type=Path, default=Path("runs/demo"), help="folder to write")
    group.add_argument(
        "--keep", action="store_true", help="leave the service running for the browser"
    )
