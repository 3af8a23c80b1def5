"""What an operator may have the engine do, as values that can be sent to another process.

A command is called with the engine. It may be carried out a second time, when the process dies
between doing it and saying so; that must do no harm (a second rollback is one version more, with
the same parameters).
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Protocol, Self, TypeVar

from aggregator.blobs import BlobsUnavailableError
from aggregator.engine import Engine, TaskError
from aggregator.fold import FoldError
from aggregator.ledger import Answer, Errand, LedgerError
from aggregator.orders import Steering
from wire.errors import WireError

__all__ = [
    "Command",
    "CreateTask",
    "ForgetLineage",
    "Promote",
    "Rollback",
    "Steer",
    "carry_out",
    "result_of",
]

R_co = TypeVar("R_co", covariant=True)

_log = logging.getLogger(__name__)


class Command(Protocol[R_co]):
    """A command with a result that JSON can hold."""

    kind: ClassVar[str]

    def __call__(self, engine: Engine) -> R_co:
        """Carry it out."""

    def encode(self) -> bytes:
        """Its arguments."""


@dataclass(frozen=True, slots=True)
class CreateTask:
    """Make a task; see ``Engine.create_task``."""

    kind: ClassVar[str] = "create-task"
    manifest: bytes

    def __call__(self, engine: Engine) -> str:
        """Its result is the task's name."""
        return engine.create_task(self.manifest)

    def encode(self) -> bytes:
        """The manifest's very bytes."""
        return self.manifest

    @classmethod
    def decode(cls, arguments: bytes) -> Self:
        """What ``encode`` gave."""
        return cls(arguments)


@dataclass(frozen=True, slots=True)
class Steer:
    """Change how a task is run; see ``Engine.steer``."""

    kind: ClassVar[str] = "steer"
    task: str
    steering: Steering

    def __call__(self, engine: Engine) -> None:
        """It has no result."""
        engine.steer(self.task, self.steering)

    def encode(self) -> bytes:
        """JSON."""
        return json.dumps({"task": self.task, "steering": asdict(self.steering)}).encode()

    @classmethod
    def decode(cls, arguments: bytes) -> Self:
        """What ``encode`` gave."""
        fields = json.loads(arguments)
        return cls(fields["task"], Steering(**fields["steering"]))


@dataclass(frozen=True, slots=True)
class _OfNumber:
    """A command on a task and one of its versions or lineages."""

    task: str
    number: int

    def encode(self) -> bytes:
        """JSON."""
        return json.dumps([self.task, self.number]).encode()

    @classmethod
    def decode(cls, arguments: bytes) -> Self:
        """What ``encode`` gave."""
        return cls(*json.loads(arguments))


class Rollback(_OfNumber):
    """Go back to an older version; see ``Engine.rollback``."""

    __slots__ = ()
    kind: ClassVar[str] = "rollback"

    def __call__(self, engine: Engine) -> int:
        """Its result is the new version."""
        return engine.rollback(self.task, self.number)


class Promote(_OfNumber):
    """Make a lineage the next version; see ``Engine.promote``."""

    __slots__ = ()
    kind: ClassVar[str] = "promote"

    def __call__(self, engine: Engine) -> int:
        """Its result is the new version."""
        return engine.promote(self.task, self.number)


class ForgetLineage(_OfNumber):
    """Forget a lineage; see ``Engine.forget_lineage``."""

    __slots__ = ()
    kind: ClassVar[str] = "forget-lineage"

    def __call__(self, engine: Engine) -> None:
        """It has no result."""
        engine.forget_lineage(self.task, self.number)


AnyCommand = CreateTask | Steer | Rollback | Promote | ForgetLineage
KINDS: Mapping[str, type[AnyCommand]] = {
    command.kind: command for command in (CreateTask, Steer, Rollback, Promote, ForgetLineage)
}
ERRORS: Mapping[str, type[Exception]] = {
    "refused": WireError,
    "incomplete": TaskError,
    "unfoldable": FoldError,
    "missing": KeyError,
    "unavailable": BlobsUnavailableError,
}
"""The errors that a client is told the reason of, by the word for them in the database."""
FAILED = "failed"


def carry_out(engine: Engine, errand: Errand) -> Answer:
    """Carry out a command that another process left.

    Raises:
        LedgerError: it could not be done for now, or by this engine no more.
    """
    if errand.kind not in KINDS:
        return Answer(FAILED, f"the merging aggregator knows no command {errand.kind}")
    try:
        return Answer(None, json.dumps(KINDS[errand.kind].decode(errand.arguments)(engine)))
    except LedgerError:
        raise
    except Exception as error:
        for word, kind in ERRORS.items():
            if isinstance(error, kind):
                return Answer(word, str(error))
        _log.exception("the command %s cannot be carried out", errand.kind)
        return Answer(FAILED, f"{type(error).__name__}: {error}")


def result_of(answer: Answer) -> Any:
    """The result of a command; raises its error, of a kind as ``carry_out`` met it."""
    if answer.error is None:
        return json.loads(answer.text)
    raise ERRORS.get(answer.error, RuntimeError)(answer.text)
