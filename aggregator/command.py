"""The command ``rivulet-aggregator``."""

import argparse
import gc
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from aggregator import operating, remote
from aggregator.blobs import BlobError
from aggregator.broker import BrokerError
from aggregator.engine import TaskError
from aggregator.enrolment import EnrolmentError
from aggregator.fold import FoldError
from aggregator.ledger import LedgerError
from aggregator.service import Service, ServiceError
from aggregator.settings import KEYS, PREFIX, Role, Settings, SettingsError, load_settings
from wire.bundle import read_bundle
from wire.errors import WireError

__all__ = ["main"]

EXIT_FAILED = 1
EXIT_USAGE = 2

SERVE = f"""\
Takes updates from devices over MQTT, merges them into versions of each task's model, and serves
the HTTP API and the dashboard. Everything is kept in the data folder, unless the settings name
another place: stop the service at any time, start it again with the same settings, and it goes on
where it was.

Each setting can also stand in a TOML file (--config) or in an environment variable: the key
rule.buffer_size is buffer_size in the table [rule], or {PREFIX}RULE_BUFFER_SIZE.
Flags win over variables, variables over the file. Secrets have no flag, because everybody on a
machine can read a command line: set password_file or {PREFIX}PASSWORD for the
broker, and api_token or {PREFIX}API_TOKEN for the API.

How updates are merged is the table [rule], for new tasks; PATCH /v1/tasks/TASK changes it while a
task runs. rule.kind is fedavg, fedasync, fedbuff, fadas or ca2fl; rule.optimizer is sgd, momentum,
adagrad, yogi, adam or amsgrad. Each takes some of the other keys and refuses the rest;
docs/merging.md says which, and what they mean.

The ledger can be in PostgreSQL (database = postgresql://USER@HOST/NAME; rivulet[postgres]) and the
blobs in a bucket (blobs = s3://BUCKET/PREFIX?endpoint=URL; rivulet[s3]). Their passwords and keys
come from PGPASSWORD or a PGPASSFILE, and from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.

One process does everything, or several share the work (--role; PostgreSQL only): any number take
updates in (ingest), one merges while others stand by (merge), any number answer HTTP (api). Each
has a data folder of its own, and all the same database and blobs; docs/scaling.md shows it.

The keys: {", ".join(KEYS)}.
"""
EXAMPLES = """\
examples:
  rivulet-aggregator serve --data data --broker mqtt://localhost --bundle bundle
  rivulet-aggregator serve --config aggregator.toml --broker mqtts://broker.example:8883
  rivulet-aggregator serve --data data --broker mqtt://localhost \\
    --database postgresql://rivulet@localhost/rivulet \\
    --blobs "s3://rivulet/blobs?endpoint=http://localhost:9000"
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: the arguments; those of the process if None.

    Returns:
        0 after a clean stop, 1 if the service failed or versions differ, 2 if an argument or a
        setting is wrong.
    """
    arguments = _parser().parse_args(argv)
    logging.basicConfig(
        level=logging.DEBUG if arguments.verbose else logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    try:
        return int(arguments.run(arguments))
    except (SettingsError, BlobError, BrokerError, EnrolmentError, WireError) as error:
        return _fail(error, EXIT_USAGE)
    except ServiceError as error:
        return _fail(error, EXIT_USAGE if error.usage else EXIT_FAILED)
    except (LedgerError, FoldError, TaskError, remote.RemoteError, OSError) as error:
        return _fail(error, EXIT_FAILED)


def _serve(arguments: argparse.Namespace) -> int:
    settings = _settings(arguments)
    service = Service(
        settings,
        tuple(read_bundle(path) for path in settings.bundles),
        on_ready=lambda: print(_ready(settings), flush=True),
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: service.request_stop())
    with service:
        # Modules and schemas stay for good: the collector need not walk over them under load.
        gc.collect()
        gc.freeze()
        page = f", dashboard at {service.url}/dashboard"
        has_page = settings.role in (Role.ALL, Role.API)
        print(f"listening on {service.url}{page if has_page else ''}", flush=True)
        service.wait()
    return 0


def _ready(settings: Settings) -> str:
    if settings.role is Role.MERGE:
        return f"ready: merging, announcing at {settings.broker}"
    return f"ready: updates arrive from {settings.broker}"


def _settings(arguments: argparse.Namespace) -> Settings:
    flags = {key: getattr(arguments, key.replace(".", "_"), None) for key in KEYS}
    return load_settings(arguments.config, os.environ, flags)


def _fail(error: Exception, code: int) -> int:
    print(f"rivulet-aggregator: error: {error}", file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rivulet-aggregator",
        description="Merges what devices learn into one recommender, asynchronously.",
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    serve = commands.add_parser(
        "serve",
        help="run the service until it is stopped",
        description=SERVE,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    serve.set_defaults(run=_serve)
    add = serve.add_argument
    add(
        "--role",
        metavar="ROLE",
        help="all, or one of ingest, merge and api beside processes of the others (default: all)",
    )
    add("--config", type=Path, metavar="FILE", help="TOML file with settings")
    add("--data", metavar="DIR", help="folder for what the service keeps; created when missing")
    add(
        "--database",
        metavar="URL",
        help="sqlite:///FILE or postgresql://USER@HOST/NAME (default: SQLite in DIR)",
    )
    add(
        "--blobs",
        metavar="URL",
        help="folder or s3://BUCKET/PREFIX for snapshots and bundles (default: blobs in DIR)",
    )
    add("--broker", metavar="URL", help="mqtt://host[:port], or mqtts:// for TLS")
    add("--username", metavar="NAME", help="user at the broker")
    add("--password-file", metavar="FILE", help="file with the user's password")
    add("--tls-ca", metavar="FILE", help="certificates to trust instead of the system's")
    add("--tls-cert", metavar="FILE", help="own certificate, where the broker asks for one")
    add("--tls-key", metavar="FILE", help="private key of --tls-cert")
    add("--host", metavar="ADDRESS", help="address to listen on (default: 127.0.0.1)")
    add("--port", metavar="PORT", help="port to listen on; 0 takes a free one (default: 8080)")
    add(
        "--bundle",
        action="append",
        dest="bundles",
        metavar="DIR",
        help="serve the bundle as a task, unless it is one already; may be repeated",
    )
    add(
        "--announce-interval",
        dest="announce_interval_s",
        metavar="SECONDS",
        help="least time between two announcements of a task's progress (default: 0.5)",
    )
    add(
        "--insecure",
        action="store_true",
        default=None,
        help="listen beyond loopback without an api_token: anybody can change tasks",
    )
    add("--verbose", action="store_true", help="log more")
    operating.add_commands(commands)
    remote.add_commands(commands)
    return parser
