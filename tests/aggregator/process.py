"""``rivulet-aggregator serve`` as a child process."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from tests.aggregator.device import eventually
from tests.aggregator.mosquitto import free_port
from wire.bundle import Bundle

__all__ = ["AggregatorProcess"]

DEADLINE_S = 20.0
ROOT = Path(__file__).parents[2]


class AggregatorProcess:
    """One aggregator on a data folder; ``kill`` and ``start`` it at will.

    Args:
        data: its data folder.
        broker_port: where Mosquitto listens on loopback.
        bundle: the task to serve, if it is to be given one.
        flags: further flags.
        environment: further variables.
    """

    def __init__(
        self,
        data: Path,
        broker_port: int,
        bundle: Bundle | None,
        *flags: str,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._log = data.parent / f"{data.name}.log"
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._command = [
            *(sys.executable, "-m", "aggregator", "serve", "--data", str(data)),
            *("--broker", f"mqtt://127.0.0.1:{broker_port}", "--port", str(port)),
            *(() if bundle is None else ("--bundle", str(bundle.root))),
            *flags,
        ]
        self._environment = {**os.environ, **(environment or {})}
        self.start()

    def start(self) -> None:
        """Start it; it is not ready yet."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, cwd=ROOT, env=self._environment, stdout=log, stderr=log
            )

    def output(self) -> str:
        """Everything it has written so far."""
        return self._log.read_text()

    def get(self, path: str) -> httpx.Response:
        """A GET that waits for the API to be up."""

        def attempt() -> httpx.Response | None:
            if self._process.poll() is not None:
                raise AssertionError(self.output())
            try:
                # Without the certificates, which take longer to load than all the rest, each time.
                return httpx.get(
                    self.url + path, follow_redirects=True, timeout=DEADLINE_S, verify=False
                )
            except httpx.TransportError:
                return None

        answer: list[httpx.Response] = eventually(lambda: [a for a in [attempt()] if a is not None])
        return answer[0]

    def wait_until_ready(self) -> None:
        """Wait until updates arrive."""
        eventually(lambda: self.get("/readyz").status_code == 200)

    def kill(self) -> None:
        """``kill -9``."""
        self._process.kill()
        self._process.wait()

    def pause(self) -> None:
        """Stop it where it is; ``resume`` lets it go on as if nothing had happened."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self._process.send_signal(signal.SIGCONT)

    def end(self, number: signal.Signals) -> int:
        """Send a signal and wait for the exit code."""
        self._process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """Wait for the exit code."""
        return self._process.wait(DEADLINE_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.kill()
