"""A server in a child process: waited for, logged to a file, and never left behind."""

import os
import random
import resource
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

__all__ = ["HOST", "ProcessError", "ServerProcess", "free_port", "is_listening"]

HOST = "127.0.0.1"
START_DEADLINE_S = 15.0
STOP_DEADLINE_S = 15.0
POLL_S = 0.02
LOG_TAIL_BYTES = 2_000
# 5,000 agents need as many descriptors in the broker. Not the hard limit itself: containers set
# it to a thousand million, and libwebsockets in Mosquitto allocates by it.
MAX_DESCRIPTORS = 65_536
# Below the range from which the kernel takes ports for outgoing connections. In that range, a
# client that retries on loopback while the server is down can be given the server's port and
# connect to itself.
PORTS = range(20_000, 32_000)

_RAISE_LIMIT = 'ulimit -n "$1" 2>/dev/null; shift; exec "$@"'
_KILL_WHEN_ORPHANED = 'read -r _; kill -9 "$1"'


class ProcessError(Exception):
    """A server did not start; the text has the end of its log."""


def free_port() -> int:
    """A loopback TCP port that nobody listens on at this moment.

    Raises:
        ProcessError: none was found.
    """
    for port in random.sample(PORTS, 100):
        with socket.socket() as probe:
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port
    raise ProcessError(f"no free port between {PORTS.start} and {PORTS.stop}")


def is_listening(host: str, port: int, *, timeout_s: float) -> bool:
    """Whether a TCP connection to the address succeeds within the time."""
    try:
        with socket.create_connection((host, port), timeout=timeout_s):
            return True
    except OSError:
        return False


class ServerProcess:
    """One run of a server on loopback, in a session of its own so that Ctrl-C does not reach it.

    The constructor returns when the server serves. The server is killed when this process ends
    in any way, SIGKILL included.

    Args:
        command: program and arguments.
        directory: its working directory.
        log: file that its output is appended to.
        ready: what it writes there once it serves. (That its port answers is not enough: Mosquitto
            opens the port before it finds that a certificate is missing, and then ends.)
        environment: variables to add to this process's.

    Raises:
        ProcessError: it ended, or was not ready in time; the text has the end of the log.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        directory: Path,
        log: Path,
        ready: bytes,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._log = log
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        limit = MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MAX_DESCRIPTORS)
        with log.open("ab") as output:
            self._log_start = output.tell()
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", _RAISE_LIMIT, "sh", str(limit), *command],
                cwd=directory,
                env={**os.environ, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        # PR_SET_PDEATHSIG would be shorter, but it fires when the *thread* that started the child
        # ends. A pipe to a waiting shell breaks only with the whole process.
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", _KILL_WHEN_ORPHANED, "sh", str(self._process.pid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            self._wait_until(ready)
        except BaseException:
            self.kill()
            raise

    @property
    def pid(self) -> int:
        """The server's process id."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the server has not ended."""
        return self._process.poll() is None

    def stop(self) -> None:
        """SIGTERM, then SIGKILL after a deadline; returns when it has ended."""
        self._process.terminate()
        try:
            self._process.wait(STOP_DEADLINE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._reap()

    def kill(self) -> None:
        """SIGKILL; returns when it has ended."""
        self._process.kill()
        self._reap()

    def _reap(self) -> None:
        self._guard.kill()
        self._guard.communicate()
        self._process.wait()

    def _wait_until(self, ready: bytes) -> None:
        deadline = time.monotonic() + START_DEADLINE_S
        while time.monotonic() < deadline:
            is_running, said = self.is_running, self._said()
            if ready in said:
                return
            if not is_running:
                raise ProcessError(f"it ended at once; the end of its log:\n{_tail(said)}")
            time.sleep(POLL_S)
        raise ProcessError(
            f"it was not ready within {START_DEADLINE_S:.0f} s; "
            f"the end of its log:\n{_tail(self._said())}"
        )

    def _said(self) -> bytes:
        with self._log.open("rb") as file:
            file.seek(self._log_start)
            return file.read()


def _tail(said: bytes) -> str:
    return said[-LOG_TAIL_BYTES:].decode(errors="replace").strip()
