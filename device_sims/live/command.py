"""``rivulet-fleet run``."""

import argparse
import json
import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from device_sims.folder import run_folder

if TYPE_CHECKING:
    from device_sims.live.access import Access

__all__ = ["add_run_command"]

EPILOG = """examples:
  rivulet-fleet simulate --example > scenario.toml
  rivulet-fleet run scenario.toml --speed-up 60
      two hours of the scenario in two minutes
  rivulet-fleet run scenario.toml --processes 2 \\
      --broker mqtts://broker.example --ca ca.pem --passwords devices.txt \\
      --aggregator https://aggregator.example
      against a service somewhere else

--speed-up divides every duration of the scenario: its hours, the fleet's times (updates,
stretches with and without a connection, hours of the day, coming and going), clocks that are off,
the interval between a device's updates, the aggregator's waiting and announcing, and the time
until what crashed is started again. It does not divide what takes real time here: training, the
disk, the network, agents that reconnect to a broker (up to 2 s after the first loss) and that
send again what was not answered (after 30 s and more). A fleet that this machine cannot drive at
that speed is slower than its scenario; the number of updates shows it.

Ctrl-C ends the run early: what waits is delivered, and what was done is reported. A second one
stops.
"""
TLS_OPTIONS = {
    "ca": "with --broker mqtts://... or --aggregator https://...: certificates to trust instead "
    "of the system's (PEM)",
    "cert": "likewise: the client certificate of all connections, where one is asked for",
    "key": "private key of --cert, where that has none in it",
}


def add_run_command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
) -> Callable[[argparse.Namespace], int]:
    """Add the command; gives what runs it and returns its exit code."""
    parser = commands.add_parser(
        "run",
        help="run a scenario in real time: real agents, broker, aggregator",
        description="The scenario of `rivulet-fleet simulate`, for real: every device is a "
        "production agent with its own MQTT connection and its own storage, which comes, goes, and "
        "dies as the scenario says; the aggregator is a process that is killed, the broker is "
        "restarted. What cannot be done for real is said before it starts.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("scenario", type=Path, help="a TOML file")
    parser.add_argument("--seed", type=int, help="instead of the scenario's")
    parser.add_argument(
        "--speed-up",
        type=float,
        default=1.0,
        metavar="FACTOR",
        help="divides the scenario's durations; 1 by default",
    )
    parser.add_argument(
        "--processes", type=int, default=1, help="that share the devices; 1 by default"
    )
    parser.add_argument(
        "--broker",
        default="auto",
        help="mosquitto, embedded, mqtt://host:port, mqtts://host:port, or auto, the default: "
        "mosquitto where it is installed",
    )
    for option, help_text in TLS_OPTIONS.items():
        parser.add_argument(f"--{option}", type=Path, metavar="FILE", help=help_text)
    parser.add_argument(
        "--passwords",
        type=Path,
        metavar="FILE",
        help="with --broker URL: lines NAME:PASSWORD, one for each device (device-00000, "
        "device-00001 and so on) and for the user aggregator where one is started here; without "
        "it agents connect anonymously",
    )
    parser.add_argument(
        "--aggregator",
        metavar="URL",
        help="one that runs, at the broker of --broker, and serves the scenario's task; default: "
        "one is started",
    )
    parser.add_argument("--out", type=Path, default=Path("runs/run"), help="folder to write")
    return _run


def _run(arguments: argparse.Namespace) -> int:
    # Only here: they bring the aggregator along, and `--help` should not wait for that.
    from device_sims.live.run import LiveSettings, run_live
    from device_sims.scenario import ScenarioError, read_scenario
    from device_sims.simulation.report import table

    speed_up = arguments.speed_up
    if not (math.isfinite(speed_up) and speed_up > 0.0):
        raise ScenarioError(f"--speed-up is {speed_up:g}; expected a number above 0")
    if arguments.processes < 1:
        raise ScenarioError(f"--processes is {arguments.processes}; expected at least 1")
    if arguments.aggregator is not None and "://" not in arguments.broker:
        raise ScenarioError("--aggregator goes with --broker URL: the broker that it listens to")
    scenario, access = read_scenario(arguments.scenario), _access(arguments)
    if arguments.seed is not None:
        scenario = scenario.with_seed(arguments.seed)
    with run_folder(arguments.out) as out:
        live = run_live(
            scenario,
            LiveSettings(
                out=out,
                broker=arguments.broker,
                access=access,
                aggregator=arguments.aggregator,
                processes=arguments.processes,
                speed_up=speed_up,
            ),
        )
        outcome, path = live.outcome, out / "outcome.json"
        document = {
            **outcome.to_dict(),
            "live": {
                "speed_up": speed_up,
                **{name: value for name, value in asdict(live).items() if name != "outcome"},
            },
        }
        path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        print(table(outcome))
        if live.unchecked:
            print(f"not checked  {', '.join(live.unchecked)}: they are in the aggregator's ledger")
        if live.errors:
            print(f"errors       {live.errors:,}, see {out}/agents-*.log")
        print(
            f"connected    {live.connected:,} devices at most; {live.took_part:,} had an update "
            f"accepted\nprocesses    {live.cpu_s:,.1f} s of CPU in {live.wall_s:,.1f} s, "
            f"{live.memory_bytes / 1e6:,.0f} MB\nwritten: {path}"
        )
    return 1 if outcome.audit.broken else 0


def _access(arguments: argparse.Namespace) -> "Access":
    from device_sims.live.access import Access, read_passwords
    from device_sims.scenario import ScenarioError
    from edge_agent.config import TlsFiles

    broker, aggregator, passwords = arguments.broker, arguments.aggregator, arguments.passwords
    files = {name: file for name in TLS_OPTIONS if (file := getattr(arguments, name)) is not None}
    secured = broker.startswith("mqtts://") or (aggregator or "").startswith("https://")
    for name, file in files.items():
        if not secured:
            raise ScenarioError(
                f"--{name} goes with --broker mqtts://... or --aggregator https://...; "
                f"the broker is {broker}"
            )
        if not file.is_file():
            raise ScenarioError(f"--{name} {file} is not there; expected a PEM file")
    if "key" in files and "cert" not in files:
        raise ScenarioError("--key goes with --cert: the certificate that it is the key of")
    if passwords is not None and "://" not in broker:
        raise ScenarioError(f"--passwords goes with --broker URL; the broker is {broker}")
    return Access(
        tls=TlsFiles(**files), passwords={} if passwords is None else read_passwords(passwords)
    )
