"""A real Mosquitto on a free port, for the aggregator's tests."""

import random
import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

__all__ = ["Mosquitto", "free_port"]

DEADLINE_S = 10.0
# Below the ports that the kernel gives to outgoing connections: a client that retries while the
# broker is down could otherwise be given the broker's port and connect to itself.
PORTS = range(20_000, 32_000)
OPEN = ("allow_anonymous true",)


def free_port() -> int:
    """A loopback port that nobody listens on at this moment."""
    for port in random.sample(PORTS, 100):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("no free port")


class Mosquitto:
    """A broker in a child process; ``kill`` and ``start`` it at will.

    Args:
        folder: for its configuration and log.
        lines: of its configuration, besides the listener.
    """

    def __init__(self, folder: Path, lines: Sequence[str] = OPEN) -> None:
        self.port = free_port()
        self._folder = folder
        self._folder.mkdir(parents=True, exist_ok=True)
        self._configuration = self._folder / "mosquitto.conf"
        self._configuration.write_text(
            "\n".join(
                [
                    f"listener {self.port} 127.0.0.1",
                    # Started as root it would become a user who cannot read the files of a test.
                    "user root",
                    *lines,
                    "persistence false",
                    "max_inflight_messages 1000",
                    "max_queued_messages 100000",
                ]
            )
            + "\n"
        )
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it; returns when it listens."""
        program = shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin:/bin")
        if program is None:
            raise RuntimeError("these tests need the package mosquitto")
        with (self._folder / "mosquitto.log").open("ab") as log:
            self._process = subprocess.Popen(
                [program, "-c", str(self._configuration)], stdout=log, stderr=log
            )
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1.0).close()
            except OSError:
                time.sleep(0.02)
            else:
                return
        raise RuntimeError((self._folder / "mosquitto.log").read_text())

    def kill(self) -> None:
        """``kill -9``."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.kill()
