"""What the API needs of the service, and how a request gets it."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Protocol, TypeVar, cast

from fastapi import Depends, HTTPException, Request, status

from aggregator.blobs import Blobs
from aggregator.commands import Command
from aggregator.ledger import Reports, TaskRecord
from aggregator.metrics import Instruments
from aggregator.patches import Patches
from aggregator.retention import Retention

__all__ = [
    "BodyOf",
    "Call",
    "Core",
    "CoreOf",
    "Readiness",
    "TaskOf",
    "Vitals",
    "VitalsOf",
    "authorised",
]

MAX_BODY_BYTES = 1 << 20
T = TypeVar("T")


class Call(Protocol):
    """Has the engine carry out a command and gives its result.

    In the engine's process ``Runner.call`` does it, in another ``Desk.call``.
    """

    def __call__(self, command: Command[T]) -> T:
        """Have it done; raises what it raises, or TimeoutError."""


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether the service can do its work; for each part None, or what is wrong with it.

    A part that a role does without has nothing wrong with it. Who stands by is ready to.
    """

    broker: str | None
    engine: str | None
    database: str | None
    stands_by: bool = False

    @property
    def ready(self) -> bool:
        """Nothing is wrong."""
        return self.broker is None and self.engine is None and self.database is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Vitals:
    """What a process of any role tells of itself.

    Attributes:
        instruments: the metrics.
        readiness: looks at the parts.
        role: what it does.
    """

    instruments: Instruments
    readiness: Callable[[], Readiness]
    role: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Core:
    """What the API stands on.

    Attributes:
        reports: reads the ledger.
        blobs: bundles and snapshots.
        patches: what leads from one publication to another.
        call: everything that changes something goes through the engine.
        now: seconds since 1970.
        api_token: needed to change anything; None lets everybody.
        retention: what is kept.
    """

    reports: Reports
    blobs: Blobs
    patches: Patches
    call: Call
    now: Callable[[], float]
    api_token: str | None
    retention: Retention = field(default_factory=Retention)


def _core(request: Request) -> Core:
    return cast(Core, request.app.state.core)


CoreOf = Annotated[Core, Depends(_core)]


def _vitals(request: Request) -> Vitals:
    return cast(Vitals, request.app.state.vitals)


VitalsOf = Annotated[Vitals, Depends(_vitals)]


def _task(task: str, core: CoreOf) -> TaskRecord:
    record = core.reports.task(task)
    if record is None:
        raise HTTPException(
            status.HTTP_404_NOT_FOUND, f"no task {task:.64}; GET /v1/tasks lists them"
        )
    return record


TaskOf = Annotated[TaskRecord, Depends(_task)]


def authorised(request: Request, core: CoreOf) -> None:
    """Let a request change something: with the token, where one is set.

    Raises:
        HTTPException: 401.
    """
    if core.api_token is None:
        return
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    same = secrets.compare_digest(given.strip().encode(), core.api_token.encode())
    if scheme.lower() != "bearer" or not same:
        raise HTTPException(
            status.HTTP_401_UNAUTHORIZED,
            "changing something needs the header Authorization: Bearer with the api_token "
            "of the aggregator's settings",
            headers={"WWW-Authenticate": "Bearer"},
        )


async def _body(request: Request) -> bytes:
    """The whole body, which is read only as far as it may be long."""
    body = bytearray()
    async for portion in request.stream():
        body += portion
        if len(body) > MAX_BODY_BYTES:
            raise HTTPException(
                status.HTTP_413_CONTENT_TOO_LARGE, f"the body has at most {MAX_BODY_BYTES} bytes"
            )
    return bytes(body)


BodyOf = Annotated[bytes, Depends(_body)]
