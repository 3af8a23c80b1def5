"""The process: its data folder, its HTTP server, and the part that it plays."""

import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Self

import uvicorn

from aggregator.api import Vitals, create_app
from aggregator.ledger import FileLock, connect
from aggregator.metrics import Instruments
from aggregator.roles import PARTS, ServiceError, Surroundings
from aggregator.roles.part import take
from aggregator.settings import Settings
from wire.bundle import Bundle

__all__ = ["Service", "ServiceError"]

GRACE_S = 3
START_TIMEOUT_S = 30.0

_log = logging.getLogger(__name__)


class Service:
    """An aggregator, or the part of one: threads for its core, the broker and HTTP.

    Use it as a context manager; leaving it stops everything cleanly.

    Args:
        settings: what it is told.
        bundles: checked bundles to serve as tasks.
        on_ready: called whenever the connection to the broker stands, and updates arrive.

    Raises:
        ServiceError: the data folder is in use, or the port is.
        LedgerError: the database cannot be used.
        BlobError: the place for blobs cannot be used.
        OSError: the blobs cannot be reached.
        EnrolmentError: the file of enrolled devices cannot be used.
        BrokerError: the TLS files cannot be used.
    """

    def __init__(
        self,
        settings: Settings,
        bundles: tuple[Bundle, ...] = (),
        *,
        on_ready: Callable[[], None] = lambda: None,
    ) -> None:
        self._over = threading.Event()
        self._failure: ServiceError | None = None
        self._closing = ExitStack()
        with ExitStack() as opened:
            self._socket = opened.enter_context(_listen(settings.host, settings.port))
            folder = FileLock(settings.data / "lock")
            _make(settings.data)
            take(folder, str(settings.data))
            opened.callback(folder.release)
            database = connect(settings.database)
            opened.callback(database.dispose)
            around = Surroundings(
                settings=_with_client_id(settings),
                database=database,
                instruments=Instruments(),
                bundles=bundles,
                on_ready=on_ready,
                fail=self._fail,
            )
            self._part = PARTS[settings.role](around, opened)
            self._serve(around)
            self._closing = opened.pop_all()

    def _serve(self, around: Surroundings) -> None:
        vitals = Vitals(
            instruments=around.instruments,
            readiness=self._part.readiness,
            role=around.settings.role.value,
        )
        self._server = uvicorn.Server(
            uvicorn.Config(
                create_app(vitals, self._part.core),
                lifespan="off",
                log_level=logging.WARNING,
                ws="none",
                log_config=None,
                access_log=False,
                timeout_graceful_shutdown=GRACE_S,
            )
        )
        self._server_thread = threading.Thread(
            target=self._server.run, args=([self._socket],), name="http", daemon=True
        )

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Where the API is."""
        host, port = self._socket.getsockname()[:2]
        return f"http://{f'[{host}]' if ':' in host else host}:{port}"

    def start(self) -> None:
        """Take up the work, serve HTTP, and begin to connect to the broker.

        Raises:
            LedgerUnavailableError: the database refuses.
            FoldError: a task has lost every snapshot.
            WireError: a bundle does not make a task.
        """
        try:
            self._part.start()
            self._server_thread.start()
            self._wait_for_server()
            self._part.connect()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop taking updates, answer what is in hand, and close everything."""
        self._part.stop()
        self._server.should_exit = True
        if self._server_thread.ident is not None:
            self._server_thread.join()
        self._closing.close()

    def request_stop(self) -> None:
        """Make ``wait`` return; safe in a signal handler."""
        self._over.set()

    def wait(self) -> None:
        """Wait until a stop is requested.

        Raises:
            ServiceError: the service cannot go on.
        """
        self._over.wait()
        if self._failure is not None:
            raise self._failure

    def _wait_for_server(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._server.started:
            if not self._server_thread.is_alive() or time.monotonic() > deadline:
                raise ServiceError("the HTTP server did not start")
            time.sleep(0.01)

    def _fail(self, failure: ServiceError) -> None:
        self._failure = self._failure or failure
        self._over.set()


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server(
            (host, port),
            family=socket.AF_INET6 if ":" in host else socket.AF_INET,
            backlog=1024,
        )
    except OSError as error:
        raise ServiceError(
            f"cannot listen on {host}:{port}: {_reason(error)}; choose another --port", usage=True
        ) from None


def _reason(error: OSError) -> str:
    # The resolver's numbers are negative and not the system's.
    number = error.errno
    return os.strerror(number) if number is not None and number > 0 else str(error)


def _make(data: Path) -> None:
    try:
        data.mkdir(parents=True, exist_ok=True)
        (data / "lock").touch()
    except OSError as error:
        raise ServiceError(f"cannot write to {data}: {error.strerror}", usage=True) from None


def _with_client_id(settings: Settings) -> Settings:
    broker = settings.broker
    if broker is None or broker.client_id:
        return settings
    return replace(settings, broker=replace(broker, client_id=_client_id(settings.data)))


def _client_id(data: Path) -> str:
    """The same in every life, so that the broker finds the session again."""
    file = data / "client-id"
    if not file.exists():
        file.write_text(f"rivulet-aggregator-{secrets.token_hex(4)}")
    return file.read_text().strip()
