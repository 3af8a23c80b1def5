"""A word to the service manager: ready, alive, stopping. Does nothing where there is none."""

import os
import socket
from collections.abc import Mapping

__all__ = ["ServiceManager"]


class ServiceManager:
    """The protocol of sd_notify(3), for units with ``Type=notify`` and ``WatchdogSec``.

    Args:
        environment: where the manager says how to reach it.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        # A leading @ is how an abstract socket's zero byte is written.
        self._address = "\0" + address[1:] if address.startswith("@") else address
        watchdog_us = environment.get("WATCHDOG_USEC", "")
        self._watchdog_s = int(watchdog_us) / 1e6 if watchdog_us.isdigit() else 0.0

    @property
    def alive_every_s(self) -> float | None:
        """How often to call ``alive``: twice as often as the manager wants it; None: never."""
        return self._watchdog_s / 2 or None

    def ready(self) -> None:
        """The service is up."""
        self._send("READY=1")

    def alive(self) -> None:
        """The service's loop still turns."""
        self._send("WATCHDOG=1")

    def stopping(self) -> None:
        """The service is about to end."""
        self._send("STOPPING=1")

    def _send(self, state: str) -> None:
        if not self._address:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            try:
                channel.sendto(state.encode(), self._address)
            except OSError:
                # A manager that went away is no reason to stop.
                return
