"""The command ``rivulet-agent``."""

import argparse
import logging
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from edge_agent.config import CONFIG_VARIABLE, AgentConfig, load_config
from edge_agent.errors import AgentError, ConfigError, InteractionError, RuntimeUnavailableError
from edge_agent.interactions import (
    Interaction,
    check_context,
    check_item,
    import_csv,
    parse_time,
)
from wire.errors import WireError

__all__ = ["main"]

EXIT_FAILED = 1
EXIT_USAGE = 2
# Modules that need sockets or numpy are imported by the command that uses them: logging one event
# on a small device takes a tenth of a second, not half of one.


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: the arguments; those of the process if None.

    Returns:
        0 if done, 1 if it failed, 2 if an argument or a setting is wrong.
    """
    # Before numpy is imported: its algebra has threads with buffers that this never needs.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    arguments = _parser().parse_args(argv)
    logging.basicConfig(
        level=logging.DEBUG if arguments.verbose else logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    try:
        return int(arguments.run(load_config(arguments.config), arguments))
    except (ConfigError, InteractionError, RuntimeUnavailableError) as error:
        return _fail(error, EXIT_USAGE)
    except (AgentError, WireError, OSError) as error:
        return _fail(error, EXIT_FAILED)


def _fail(error: Exception, code: int) -> int:
    print(f"rivulet-agent: error: {error}", file=sys.stderr)
    return code


def _run(config: AgentConfig, _arguments: argparse.Namespace) -> int:
    from edge_agent.service import run

    run(config)
    return 0


def _status(config: AgentConfig, _arguments: argparse.Namespace) -> int:
    from edge_agent.inspection import status

    found = status(config)
    counters, evaluation = found.counters, found.evaluation or {}
    lines = {
        "device": found.device,
        "task": f"{found.task or 'none yet'} {found.recommender or ''}".strip(),
        "version": "none yet" if found.version is None else found.version,
        "interactions": found.interactions,
        "updates": f"{counters['created']} made, {counters['accepted']} accepted, "
        f"{counters['duplicate']} duplicate, {counters['rejected']} rejected, "
        f"{found.waiting} waiting ({found.waiting_bytes} bytes)",
        "evaluation": ", ".join(f"{name} {value:.3f}" for name, value in evaluation.items())
        or "none yet",
        "bytes": f"{counters['sent_bytes']} sent, {counters['received_bytes']} received",
    }
    for name, value in lines.items():
        print(f"{name:<13} {value}")
    return 0


def _recommend(config: AgentConfig, arguments: argparse.Namespace) -> int:
    from edge_agent.inspection import recommendations

    context = dict(arguments.context)
    found = recommendations(
        config,
        arguments.top,
        context,
        again=arguments.again,
        parameters=arguments.parameters,
    )
    for item, score in found:
        print(f"{item}\t{score:.4f}")
    return 0


def _log_event(config: AgentConfig, arguments: argparse.Namespace) -> int:
    from edge_agent.state_dir import open_store
    from edge_agent.task import known_manifest

    now = time.time()
    at = now if arguments.at is None else parse_time(arguments.at, now=now)
    store = open_store(config, create=True)
    try:
        manifest = known_manifest(store, config.task)
        item = check_item(arguments.item, manifest)
        context = check_context(dict(arguments.context), manifest)
        added = store.add_interactions([Interaction(item, at, context)])
    finally:
        store.close()
    print("added" if added else "known already")
    return 0


def _import(config: AgentConfig, arguments: argparse.Namespace) -> int:
    from edge_agent.state_dir import open_store
    from edge_agent.task import known_manifest

    store = open_store(config, create=True)
    try:
        report = import_csv(
            arguments.file,
            store.add_interactions,
            now=time.time(),
            item_column=arguments.item_column,
            time_column=arguments.time_column,
            context_columns=arguments.context_column,
            delimiter=arguments.delimiter,
            manifest=known_manifest(store, config.task),
        )
    finally:
        store.close()
    for line in report.examples:
        print(f"{arguments.file}:{line.number}: skipped: {line.reason}", file=sys.stderr)
    print(f"{report.added} added, {report.known} known already, {report.broken} broken")
    return EXIT_FAILED if report.broken else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rivulet-agent",
        description="Train a recommender on this device and share what was learned, never the "
        "data. Settings come from a TOML file and from RIVULET_AGENT_... variables, which "
        "override it.",
        epilog="example: rivulet-agent --config agent.toml import ratings.csv && "
        "rivulet-agent --config agent.toml run",
    )
    parser.add_argument(
        "--config",
        type=Path,
        default=os.environ.get(CONFIG_VARIABLE),
        metavar="FILE",
        help=f"TOML file with the settings; default: the variable {CONFIG_VARIABLE}",
    )
    parser.add_argument("--verbose", action="store_true", help="log what happens in detail")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add(commands, _run, "run", "take part until SIGTERM or Ctrl-C")
    _add(commands, _status, "status", "print what the device has done; works beside a running one")
    recommend = _add(commands, _recommend, "recommend", "print the best items, best first")
    recommend.add_argument(
        "--top", type=_positive, default=10, metavar="N", help="how many items; default: 10"
    )
    recommend.add_argument(
        "--again", action="store_true", help="also items that are in the history already"
    )
    recommend.add_argument(
        "--parameters",
        type=Path,
        metavar="FILE",
        help="score with these, for example int8 tables from `rivulet-export quantise`; default: "
        "the version that the agent trained on last",
    )
    _add_context(recommend, "default: as in the newest interaction")
    log_event = _add(commands, _log_event, "log-event", "add one interaction to the history")
    log_event.add_argument(
        "--item", type=int, required=True, metavar="ID", help="item id, from 0 on"
    )
    log_event.add_argument("--at", metavar="TIME", help="unix seconds or ISO 8601; default: now")
    _add_context(log_event, "default: 0, not known")
    _add_import(commands)
    return parser


def _add(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    run: object,
    name: str,
    description: str,
) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=description, description=description)
    command.set_defaults(run=run)
    return command


def _add_context(command: argparse.ArgumentParser, default: str) -> None:
    command.add_argument(
        "--context",
        type=_context,
        action="append",
        default=[],
        metavar="FIELD=ID",
        help=f"id of one of the task's context fields, for example daytime=3; may be repeated; "
        f"{default}",
    )


def _add_import(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = commands.add_parser(
        "import",
        help="add the interactions of a CSV file to the history",
        description="Add the interactions of a CSV file with a header. Lines that are broken are "
        "skipped and reported, and then the exit code is 1; lines imported before are left alone.",
    )
    command.add_argument("file", type=Path, help="the file, UTF-8")
    command.add_argument(
        "--item-column", default="item", metavar="NAME", help="column of item ids; default: item"
    )
    command.add_argument(
        "--time-column",
        default="time",
        metavar="NAME",
        help="column of times, unix seconds or ISO 8601; default: time",
    )
    command.add_argument(
        "--context-column",
        action="append",
        default=[],
        metavar="NAME",
        help="column with ids of the task's context field of that name, empty or 0 where it is not "
        "known; may be repeated",
    )
    command.add_argument(
        "--delimiter", type=_character, default=",", metavar="C", help="default: a comma"
    )
    command.set_defaults(run=_import)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def _context(text: str) -> tuple[str, int]:
    name, _, value = text.partition("=")
    try:
        return name, int(value)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a field and an id: FIELD=ID") from None


def _character(text: str) -> str:
    if len(text) != 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not one character")
    return text
