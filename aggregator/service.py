"""The whole aggregator in one process: ledger, engine, link to the broker, HTTP server."""

import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Self

import uvicorn

from aggregator.api import Core, Readiness, create_app
from aggregator.blobs import Blobs, open_blobs
from aggregator.engine import Engine
from aggregator.enrolment import Enrolment
from aggregator.ledger import FileLock, Ledger, Lock, Reports, Watch, bring_up, connect, lock_of
from aggregator.metrics import Instruments
from aggregator.mqtt import Link
from aggregator.patches import Patches
from aggregator.probe import Probe
from aggregator.runner import Runner
from aggregator.settings import Settings
from wire.bundle import Bundle

__all__ = ["Service", "ServiceError"]

GRACE_S = 3
START_TIMEOUT_S = 30.0

_log = logging.getLogger(__name__)


class ServiceError(Exception):
    """The service cannot start or go on; the message says why.

    Attributes:
        usage: what it was told is wrong, rather than what it met.
    """

    def __init__(self, message: str, *, usage: bool = False) -> None:
        super().__init__(message)
        self.usage = usage


class Service:
    """An aggregator: threads for the engine, the broker and HTTP around one synchronous core.

    Use it as a context manager; leaving it stops everything cleanly.

    Args:
        settings: what it is told.
        bundles: checked bundles to serve as tasks.
        on_ready: called whenever updates have begun to arrive from the broker.

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
        self._on_ready = on_ready
        self._over = threading.Event()
        self._failure: ServiceError | None = None
        self._closing = ExitStack()
        with ExitStack() as opened:
            self._socket = opened.enter_context(_listen(settings.host, settings.port))
            folder = FileLock(settings.data / "lock")
            _make(settings.data)
            _take(folder, str(settings.data))
            opened.callback(folder.release)
            database = connect(settings.database)
            opened.callback(database.dispose)
            # Before the tables are changed: whoever writes to them has older software.
            writer = lock_of(database, "writer")
            _take(writer, "the database")
            opened.callback(writer.release)
            bring_up(database)
            self._watch = Watch(writer, on_lost=self._superseded)
            self._ledger = Ledger(database)
            self._probe = Probe(self._ledger.check, time)
            self._build(settings, Reports(database))
            self._bundles = bundles
            self._closing = opened.pop_all()

    def _build(self, settings: Settings, reports: Reports) -> None:
        instruments, blobs = Instruments(), _open_blobs(settings)
        self._blobs = blobs
        client_id = settings.broker.client_id or _client_id(settings.data)
        self._engine = engine = Engine(
            ledger=self._ledger,
            blobs=blobs,
            publish=self._publish,
            clock=time,
            instruments=instruments,
            admission=settings.admission,
            retention=settings.retention,
            rule=settings.rule,
            enrolled=_enrolled(settings.devices_file),
            announce_interval_s=settings.announce_interval_s,
        )
        self._runner = Runner(
            engine,
            instruments=instruments,
            on_room=self._wake,
            on_death=self._died,
        )
        self._link = Link(
            replace(settings.broker, client_id=client_id),
            deliver=self._runner.post,
            has_room=lambda: self._runner.has_room,
            on_ready=self._broker_ready,
            on_refused=lambda problem: self._fail(ServiceError(problem, usage=True)),
        )
        instruments.connected.set_function(lambda: float(self._link.connected))
        core = Core(
            reports=reports,
            blobs=blobs,
            patches=Patches(settings.data / "patches", reports=reports, blobs=blobs),
            call=self._runner.call,
            instruments=instruments,
            readiness=self.readiness,
            now=time.time,
            api_token=settings.api_token,
            retention=settings.retention,
        )
        self._server = uvicorn.Server(
            uvicorn.Config(
                create_app(core),
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
        """Take up the tasks, serve HTTP, and begin to connect to the broker.

        Raises:
            LedgerUnavailableError: the database refuses.
            FoldError: a task has lost every snapshot.
            WireError: a bundle does not make a task.
        """
        try:
            for bundle in self._bundles:
                _mend(self._blobs, bundle)
            self._runner.start()
            for bundle in self._bundles:
                self._runner.call(partial(_register, bundle=bundle))
            self._watch.start()
            self._server_thread.start()
            self._wait_for_server()
            self._link.start()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop taking updates, answer what is in hand, and close everything."""
        self._watch.stop()
        self._runner.stop()
        self._link.stop()
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

    def readiness(self) -> Readiness:
        """Whether updates are taken, and if not, why."""
        return Readiness(
            broker=None if self._link.ready else self._link.problem or "not connected",
            engine=self._runner.problem or self._engine.problem,
            database=self._probe.problem(),
        )

    def _wait_for_server(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._server.started:
            if not self._server_thread.is_alive() or time.monotonic() > deadline:
                raise ServiceError("the HTTP server did not start")
            time.sleep(0.01)

    # The engine speaks to the link and the link to the engine; these come between, because one of
    # the two must be made first.

    def _publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        self._link.publish(topic, payload, retain=retain)

    def _wake(self) -> None:
        self._link.wake()

    def _broker_ready(self) -> None:
        self._runner.post_command(Engine.announce_all)
        self._on_ready()

    def _died(self, error: BaseException) -> None:
        self._fail(ServiceError(f"the engine has failed: {error}"))

    def _superseded(self) -> None:
        self._fail(ServiceError("another aggregator has taken over the database"))

    def _fail(self, failure: ServiceError) -> None:
        self._failure = self._failure or failure
        self._over.set()


def _open_blobs(settings: Settings) -> Blobs:
    return open_blobs(
        settings.blobs or str(settings.data / "blobs"),
        cache=settings.data / "blobs-cache",
        cache_bytes=settings.blobs_cache_bytes,
        redirect=settings.blobs_redirect,
    )


def _enrolled(file: Path | None) -> Callable[[], frozenset[str] | None]:
    return (lambda: None) if file is None else Enrolment(file).devices


def _mend(blobs: Blobs, bundle: Bundle) -> None:
    # Before the tasks are taken up: a lost version 0 can be had from nowhere else.
    for entry in bundle.manifest.files:
        blobs.put_file(bundle.path(entry), entry.sha256)


def _register(engine: Engine, *, bundle: Bundle) -> str:
    return engine.register(bundle)


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


def _take(lock: Lock, what: str) -> None:
    """Two writers on one ledger would each believe to be alone."""
    if not lock.acquire():
        raise ServiceError(f"{what} is in use by another aggregator", usage=True)


def _client_id(data: Path) -> str:
    """The same in every life, so that the broker finds the session again."""
    file = data / "client-id"
    if not file.exists():
        file.write_text(f"rivulet-aggregator-{secrets.token_hex(4)}")
    return file.read_text().strip()
