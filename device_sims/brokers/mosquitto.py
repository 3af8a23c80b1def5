"""Mosquitto as a child process, with the production configuration of ``deploy/mosquitto``."""

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from device_sims.brokers.base import Broker, BrokerError
from device_sims.processes import HOST, ProcessError, ServerProcess, free_port

__all__ = ["MosquittoBroker", "configuration_directory", "find_mosquitto"]

# Debian keeps servers out of a normal user's PATH.
SYSTEM_PATHS = ("/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin", "/opt/homebrew/bin")
PASSWORDS_DEADLINE_S = 60.0

_LISTENER = re.compile(r"^listener \d+(?: \S+)?$", re.MULTILINE)


def find_mosquitto() -> Path | None:
    """The `mosquitto` program, or None where it or `mosquitto_passwd` is not installed."""
    broker, passwords = _find("mosquitto"), _find("mosquitto_passwd")
    return broker if passwords else None


def configuration_directory() -> Path:
    """The configuration as it ships: inside an installed package, or in a clone beside it.

    Raises:
        BrokerError: it is in neither place.
    """
    package = Path(__file__).parent.parent
    for directory in (package / "mosquitto", package.parent / "deploy" / "mosquitto"):
        if (directory / "mosquitto.conf").is_file():
            return directory
    raise BrokerError("the Mosquitto configuration is missing from this installation")


class MosquittoBroker(Broker):
    """Mosquitto on a free loopback port. Only the port differs from the production files.

    Args:
        directory: folder for this broker's configuration, passwords, data and log; created when
            missing. What a TLS listener needs must be in its ``certificates`` folder already.
        users: password by user name. ``aggregator`` has the aggregator's rights, every other
            name those of the device with that id.
        listener: which file of ``deploy/mosquitto/listeners`` to use, without ``.conf``.

    Raises:
        BrokerError: Mosquitto is not installed, a user name or password cannot be stored, or it
            did not start.
    """

    kind = "mosquitto"

    def __init__(
        self, directory: Path, users: Mapping[str, str], *, listener: str = "loopback"
    ) -> None:
        program = find_mosquitto()
        if program is None:
            raise BrokerError(
                "mosquitto is not installed; apt-get install mosquitto, or take the embedded broker"
            )
        self._program, self._port = str(program), free_port()
        self._scheme = "mqtt" if listener == "loopback" else "mqtts"
        self._directory = directory.resolve()
        _copy_configuration(self._directory, listener, self._port)
        _write_passwords(self._directory / "passwords", users)
        self._server: ServerProcess | None = None
        self.restart()

    @property
    def url(self) -> str:
        """Where clients connect, the same after a restart."""
        return f"{self._scheme}://{HOST}:{self._port}"

    @property
    def log(self) -> Path:
        """File with everything that Mosquitto said."""
        return self._directory / "mosquitto.log"

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        running = self._server is not None and self._server.is_running
        return self._server.pid if self._server and running else None

    def describe(self) -> str:
        """For example ``Mosquitto 2.0.11 at mqtt://127.0.0.1:20123, its own process``."""
        return f"{_version(self._program)} at {self.url}, its own process"

    def stop(self) -> None:
        """Stop it cleanly: it writes its sessions and queues to disk first."""
        server, self._server = self._server, None
        if server is not None:
            server.stop()

    def kill(self) -> None:
        """``kill -9``: what it has not saved is lost."""
        server, self._server = self._server, None
        if server is not None:
            server.kill()

    def restart(self) -> None:
        """Start it on the same port and data, after a clean stop if it still runs.

        Raises:
            BrokerError: it did not start.
        """
        self.stop()
        try:
            self._server = ServerProcess(
                [self._program, "-c", "mosquitto.conf"],
                directory=self._directory,
                log=self.log,
                ready=b" running\n",
            )
        except ProcessError as error:
            raise BrokerError(f"Mosquitto did not start: {error}") from None


def _find(program: str) -> Path | None:
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), *SYSTEM_PATHS])
    found = shutil.which(program, path=path)
    return Path(found) if found else None


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, timeout=PASSWORDS_DEADLINE_S, check=False
    )


def _version(program: str) -> str:
    # `mosquitto -h` ends with status 3 although it prints what was asked for.
    found = re.search(r"version (\S+)", _run([program, "-h"]).stdout)
    return f"Mosquitto {found[1]}" if found else "Mosquitto"


def _copy_configuration(directory: Path, listener: str, port: int) -> None:
    source = configuration_directory()
    for folder in (directory, directory / "data", directory / "listeners"):
        folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source / "mosquitto.conf", directory / "mosquitto.conf")
    shutil.copyfile(source / "acl", directory / "acl")
    (directory / "acl").chmod(0o600)
    text = (source / "listeners" / f"{listener}.conf").read_text(encoding="utf-8")
    text = _LISTENER.sub(f"listener {port} {HOST}", text)
    if os.geteuid() == 0:
        # Root's broker would become the user `mosquitto`, who cannot enter root's folders.
        text += "user root\n"
    (directory / "listeners" / "listener.conf").write_text(text, encoding="utf-8")


def _write_passwords(file: Path, users: Mapping[str, str]) -> None:
    for user, password in users.items():
        if not user or not password or any(mark in user + password for mark in ":\r\n"):
            raise BrokerError(f"user {user!r:.80}: name and password need text without ':' or line")
    file.touch(mode=0o600)
    file.write_text("".join(f"{user}:{password}\n" for user, password in users.items()))
    program = _find("mosquitto_passwd")
    hashed = _run([str(program), "-U", str(file)])
    if hashed.returncode != 0:
        raise BrokerError(f"mosquitto_passwd refused the users: {hashed.stderr.strip()}")
