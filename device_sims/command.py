"""The command ``rivulet-fleet``: run a whole fleet on this machine."""

import argparse
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from device_sims.brokers import BrokerError
from device_sims.comparison.command import add_command
from device_sims.data_options import add_data_options, load_data
from device_sims.datasets import DatasetError
from device_sims.demo import DemoSettings, run_demo
from device_sims.drive import DescriptorsError
from device_sims.fleet import FleetError, FleetPlan
from device_sims.folder import FolderError
from device_sims.live.command import add_run_command
from device_sims.model_options import add_model_options, choose_model
from device_sims.presets import preset
from device_sims.processes import ProcessError
from device_sims.simulation.command import add_commands
from edge_agent.errors import AgentError
from export.errors import ExportError, RecommenderError
from wire.errors import WireError

__all__ = ["main"]

EXIT_FAILED = 1
EXIT_USAGE = 2
FAILURES = (
    *(AgentError, BrokerError, DescriptorsError, ExportError, FleetError, ProcessError),
    OSError,
)

EPILOG = """examples:
  rivulet-fleet demo
      200 devices on built-in data, about a minute
  rivulet-fleet demo --dataset movielens --data ml-100k/u.data --passes 40
      one device for each of the 943 users
  rivulet-fleet demo --dataset csv --data events.csv --user-column who --item-column what
  rivulet-fleet demo --recommender fm --dataset frappe --data frappe.csv
  rivulet-fleet demo --recommender sasrec --dataset smartthings --data fr_trn.csv fr_vld.csv
  rivulet-fleet demo --broker mqtt://localhost:1883 --keep

Where no default is shown it depends on the recommender and the data, and the run says what it is.
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
    run: Callable[[argparse.Namespace], int] = arguments.run
    return run(arguments)


def _scenario(run: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    """A command that reads a scenario, with its errors named."""

    def named(arguments: argparse.Namespace) -> int:
        try:
            with _quiet("edge_agent", "aggregator"):
                return run(arguments)
        except (DatasetError, ExportError, FolderError, RecommenderError, WireError) as error:
            return _fail(error, EXIT_USAGE)
        except (AgentError, BrokerError, DescriptorsError, FleetError, ProcessError) as error:
            return _fail(error, EXIT_FAILED)
        except (ValueError, OSError) as error:
            return _fail(error, EXIT_USAGE)
        except KeyboardInterrupt:
            return _fail("stopped", EXIT_FAILED)

    return named


@contextmanager
def _quiet(*names: str) -> Iterator[None]:
    """What simulated devices say of their simulated troubles is no news."""
    levels = {logger: logger.level for logger in map(logging.getLogger, names)}
    for logger in levels:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in levels.items():
            logger.setLevel(level)


def _demo(arguments: argparse.Namespace) -> int:
    try:
        interactions = load_data(arguments)
        settings = _settings(arguments)
    except (DatasetError, ExportError, WireError, ValueError, OSError) as error:
        return _fail(error, EXIT_USAGE)
    try:
        run_demo(settings, interactions)
    except (FolderError, RecommenderError) as error:
        return _fail(error, EXIT_USAGE)
    except FAILURES as error:
        return _fail(error, EXIT_FAILED)
    except KeyboardInterrupt:
        return _fail("stopped", EXIT_FAILED)
    return 0


def _fail(error: object, code: int) -> int:
    print(f"rivulet-fleet: error: {error}", file=sys.stderr)
    return code


def _settings(arguments: argparse.Namespace) -> DemoSettings:
    values = preset(arguments.recommender, arguments.dataset)
    options = values.pop("options")
    for name, value in values.items():
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
        model=choose_model(arguments, options),
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
        epilog=EPILOG,
        formatter_class=_HelpFormatter,
    )
    add_data_options(demo.add_argument_group("data"))
    _add_fleet(demo.add_argument_group("fleet"))
    add_model_options(demo.add_argument_group("model and local training"))
    _add_service(demo.add_argument_group("services"))
    demo.set_defaults(run=_demo)
    others = {
        "run": add_run_command(commands),
        **add_commands(commands),
        "compare": add_command(commands),
    }
    for name, run in others.items():
        commands.choices[name].set_defaults(run=_scenario(run))
    return parser


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Examples as they are written, and the default of each option that has one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None else super()._get_help_string(action)


def _add_fleet(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--devices", type=int, help="devices, one for each user (default: all users; synthetic 200)"
    )
    group.add_argument("--passes", type=int, help="local updates of each device")
    group.add_argument("--concurrency", type=int, help="devices at work at a time")
    group.add_argument(
        "--update-time", type=float, default=0.1, help="median seconds of a local update"
    )
    group.add_argument(
        "--update-time-sigma", type=float, default=0.5, help="spread of that time's logarithm"
    )
    group.add_argument("--seed", type=int, default=0, help="of data, order, times and sampling")


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
        help="factor on a merged delta; above 1 makes up for what staleness takes",
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
        help="least seconds between announcements",
    )
    group.add_argument("--out", type=Path, default=Path("runs/demo"), help="folder to write")
    group.add_argument(
        "--keep", action="store_true", help="leave the service running for the browser"
    )
