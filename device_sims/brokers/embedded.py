"""The pure-Python broker amqtt in a child process, for a machine without Mosquitto."""

import sys
from importlib.metadata import version
from pathlib import Path

from device_sims.brokers.base import Broker, BrokerError
from device_sims.processes import HOST, ProcessError, ServerProcess, free_port

__all__ = ["READY", "EmbeddedBroker"]

READY = "the embedded broker is listening"


class EmbeddedBroker(Broker):
    """amqtt on a free loopback port: MQTT 3.1.1, any user name, no memory over a restart.

    It has a process of its own, so that it shares no interpreter lock with the agents. It queues
    nothing for a client that is away and delivers some messages twice; receipts make up for that.

    Args:
        directory: folder for the log; created when missing.
        reason: why it was chosen, for `describe`.

    Raises:
        BrokerError: it did not start.
    """

    kind = "embedded"

    def __init__(self, directory: Path, *, reason: str = "as asked") -> None:
        self._port, self._reason = free_port(), reason
        directory.mkdir(parents=True, exist_ok=True)
        self._log = directory / "embedded.log"
        try:
            self._server: ServerProcess | None = ServerProcess(
                [sys.executable, "-m", "device_sims.brokers.embedded_server", str(self._port)],
                directory=_import_root(),
                log=self._log.resolve(),
                ready=READY.encode(),
            )
        except ProcessError as error:
            raise BrokerError(f"the embedded broker did not start: {error}") from None

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"mqtt://{HOST}:{self._port}"

    @property
    def log(self) -> Path:
        """File with the broker's warnings."""
        return self._log

    def describe(self) -> str:
        """For example ``embedded amqtt 0.12.1 at mqtt://127.0.0.1:20123 (as asked)``."""
        return f"embedded amqtt {version('amqtt')} at {self.url} ({self._reason})"

    def stop(self) -> None:
        """Stop it; what it held is gone."""
        server, self._server = self._server, None
        if server is not None:
            server.stop()


def _import_root() -> Path:
    # `-m` looks in the working directory, which finds the package in a clone that is not installed.
    return Path(__file__).resolve().parent.parent.parent
