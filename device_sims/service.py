"""The aggregator as a child process, and its HTTP API as seen from a test bench."""

import json
import ssl
import sys
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from device_sims.processes import HOST, ServerProcess, free_port

__all__ = ["USER", "AggregatorClient", "AggregatorProcess"]

TIMEOUT_S = 30.0
READY = b"ready: "
USER = "aggregator"


class AggregatorClient:
    """Reads and steers one aggregator.

    Args:
        url: its base address, without a slash at the end.
        tls: for https; None uses the system's certificates.
    """

    def __init__(self, url: str, *, tls: ssl.SSLContext | None = None) -> None:
        self.url, self._tls = url, tls

    def get(self, path: str) -> Any:
        """The JSON document at a path; raises OSError where there is none."""
        return json.loads(self.get_bytes(path))

    def get_bytes(self, path: str) -> bytes:
        """The body at a path; raises OSError where there is none."""
        url = self.url + path
        with urllib.request.urlopen(url, timeout=TIMEOUT_S, context=self._tls) as response:
            body: bytes = response.read()
            return body


class AggregatorProcess:
    """`rivulet-aggregator serve` as a child process on a free loopback port, also as a context.

    Args:
        directory: its data folder and log.
        broker: URL of the broker.
        bundle: folder of the bundle whose task it serves.
        password: of the user ``aggregator`` at the broker; None connects anonymously.
        settings: further settings, by key as in `rivulet-aggregator serve --help`.

    Attributes:
        client: its HTTP API.

    Raises:
        ProcessError: it did not become ready; the text has the end of its log.
    """

    def __init__(
        self,
        directory: Path,
        *,
        broker: str,
        bundle: Path,
        password: str | None,
        settings: Mapping[str, Any],
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        port = free_port()
        self._directory = directory.resolve()
        self._command = [
            *(sys.executable, "-m", "aggregator", "serve", "--data", str(self._directory)),
            *("--broker", broker, "--host", HOST, "--port", str(port)),
            *("--bundle", str(bundle.resolve())),
        ]
        # On the command line, everyone on the machine could read the password.
        secret = {} if password is None else {"username": USER, "password": password}
        self._environment = {
            f"RIVULET_AGGREGATOR_{key.upper().replace('.', '_')}": str(value)
            for key, value in {**settings, **secret}.items()
        }
        self.client = AggregatorClient(f"http://{HOST}:{port}")
        self.restart()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def restart(self, *, wait: bool = True) -> None:
        """Start it on the same port and data; returns when it is ready, unless told not to wait."""
        self._process = ServerProcess(
            self._command,
            directory=self._directory,
            log=self._directory / "aggregator.log",
            ready=READY if wait else b"",
            environment=self._environment,
        )

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def kill(self) -> None:
        """``kill -9``."""
        self._process.kill()

    def stop(self) -> None:
        """Stop it cleanly."""
        self._process.stop()
