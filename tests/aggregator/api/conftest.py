"""The API over a real engine and ledger, served by uvicorn, without broker and engine thread."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from aggregator.api import Core, Readiness, Vitals, create_app
from aggregator.commands import Command
from aggregator.metrics import Instruments
from tests.aggregator.device import eventually
from tests.aggregator.workshop import Workshop

T = TypeVar("T")


class Service:
    """What the API stands on; ``problems`` and ``refusal`` can be set."""

    def __init__(self, workshop: Workshop) -> None:
        self.problems = Readiness(None, None, None)
        self.refusal: Exception | None = None
        self.workshop = workshop

    def call(self, command: Command[T]) -> T:
        if self.refusal is not None:
            raise self.refusal
        return command(self.workshop.engine)

    @contextmanager
    def client(self, api_token: str | None = None) -> Iterator[httpx.Client]:
        core = Core(
            reports=self.workshop.reports,
            blobs=self.workshop.blobs,
            patches=self.workshop.patches,
            call=self.call,
            now=self.workshop.clock.time,
            api_token=api_token,
        )
        vitals = Vitals(instruments=Instruments(), readiness=lambda: self.problems, role="all")
        with served(create_app(vitals, core)) as url, httpx.Client(base_url=url) as client:
            client.follow_redirects = True
            yield client


@contextmanager
def served(app: FastAPI) -> Iterator[str]:
    """The application on a free port."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, lifespan="off", ws="none", log_level="warning")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        eventually(lambda: server.started)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


@pytest.fixture
def service(workshop: Workshop) -> Service:
    return Service(workshop)


@pytest.fixture
def client(service: Service) -> Iterator[httpx.Client]:
    with service.client() as client:
        yield client
