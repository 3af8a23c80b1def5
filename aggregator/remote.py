"""The commands ``rollback`` and ``promote``: they ask a running service over its HTTP API."""

import argparse
import http.client
import json
import os
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from aggregator.settings import PREFIX, SettingsError

__all__ = ["RemoteError", "add_commands"]

TIMEOUT_S = 60.0
MAX_ANSWER_BYTES = 1 << 20
ROLLBACK = """\
Makes the next version with the parameters of an older one, and what its merge rule remembered
then. Nothing is destroyed: the counter grows, the versions between stay in the ledger, and going
back to one of them undoes it. Devices are told at once. Updates that are under way are merged
onto it; their staleness counts versions as ever.
"""
PROMOTE = """\
Makes a lineage of `rivulet-aggregator refold` the next version. Merges since it was folded are
taken along, without the updates that it leaves out; such updates that wait are never merged. Later
ones of the same device are: refuse the device at the broker first, if it shall not come back.
Nothing is destroyed: `rollback` to the version before undoes it, except for updates that waited.
"""
TOKEN = f"""\
The API's token, where the service has one, comes from --token-file or {PREFIX}API_TOKEN.
"""


class RemoteError(Exception):
    """The service cannot be reached, or refuses; the message says why."""


def add_commands(commands: Any) -> None:
    """Add the commands to the parser of ``rivulet-aggregator``."""
    back = _command(commands, "rollback", ROLLBACK, help_="make an older version the next one")
    back.set_defaults(run=_rollback)
    back.add_argument("--to", type=int, required=True, metavar="N", help="the older version")
    on = _command(commands, "promote", PROMOTE, help_="make a lineage the next version")
    on.set_defaults(run=_promote)
    on.add_argument("--lineage", type=int, required=True, metavar="ID", help="which lineage")


def _command(commands: Any, name: str, description: str, *, help_: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=help_,
        description=description,
        epilog=TOKEN,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--url",
        default="http://127.0.0.1:8080",
        metavar="URL",
        help="where the service is (default: http://127.0.0.1:8080)",
    )
    token = parser.add_mutually_exclusive_group()
    token.add_argument(
        "--token",
        metavar="TOKEN",
        help="the API's token; everybody on this machine can read a command line",
    )
    token.add_argument("--token-file", type=Path, metavar="FILE", help="file with the API's token")
    add("--task", required=True, metavar="TASK", help="which task")
    add("--verbose", action="store_true", help="log more")
    return parser


def _rollback(arguments: argparse.Namespace) -> int:
    made = _post(arguments, "rollback", {"version": arguments.to})
    print(
        f"task {arguments.task}: version {made['version']} has the parameters of version "
        f"{arguments.to}"
    )
    return 0


def _promote(arguments: argparse.Namespace) -> int:
    made = _post(arguments, f"lineages/{arguments.lineage}/promote", {})
    print(f"task {arguments.task}: version {made['version']} is lineage {arguments.lineage}")
    return 0


def _post(arguments: argparse.Namespace, what: str, body: dict[str, Any]) -> dict[str, Any]:
    task = urllib.parse.quote(arguments.task, safe="")
    url = f"{_checked(arguments.url)}/v1/tasks/{task}/{what}"
    headers = {"Content-Type": "application/json"}
    token = _token(arguments)
    if token:
        headers["Authorization"] = f"Bearer {token}"
    request = urllib.request.Request(url, json.dumps(body).encode(), headers, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
            answer: Any = json.loads(response.read(MAX_ANSWER_BYTES))
    except urllib.error.HTTPError as error:
        with error:
            raise RemoteError(f"the service refuses ({error.code}): {_detail(error)}") from None
    except urllib.error.URLError as error:
        raise RemoteError(f"no aggregator at {arguments.url}: {error.reason}") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise RemoteError(
            f"the answer of {arguments.url} was cut off ({error}); GET /v1/tasks/{task}/versions "
            "says whether the version was made"
        ) from None
    if not isinstance(answer, dict) or not isinstance(answer.get("version"), int):
        raise RemoteError(f"what answers at {arguments.url} is no aggregator")
    return answer


def _detail(error: urllib.error.HTTPError) -> str:
    text = error.read(MAX_ANSWER_BYTES).decode(errors="replace")
    try:
        answer: Any = json.loads(text)
    except ValueError:
        answer = None
    detail = answer.get("detail") if isinstance(answer, dict) else None
    return f"{detail or text or error.reason!s:.500}"


def _checked(url: str) -> str:
    try:
        parts = urllib.parse.urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise SettingsError(f"url is {url!r}; expected http://HOST:PORT")
    return url.rstrip("/")


def _token(arguments: argparse.Namespace) -> str | None:
    if arguments.token_file is None:
        return arguments.token or os.environ.get(f"{PREFIX}API_TOKEN")
    try:
        return str(arguments.token_file.read_text(encoding="utf-8")).strip()
    except (OSError, ValueError) as error:
        raise SettingsError(f"cannot read token-file: {error}") from None
