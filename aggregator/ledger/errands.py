"""Commands that one process leaves in the database for the one that merges, and their answers."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Engine, delete, insert, select, update

from aggregator.ledger.database import reading, transaction
from aggregator.ledger.schema import commands

__all__ = ["Answer", "Errand", "Errands"]


@dataclass(frozen=True, slots=True)
class Errand:
    """A command that was left.

    Attributes:
        id: counts up.
        kind: which command.
        arguments: of that kind's own form.
    """

    id: int
    kind: str
    arguments: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of it.

    Attributes:
        error: what sort of error, or None if it was carried out.
        text: the error's sentence, or the result in JSON.
    """

    error: str | None
    text: str


class Errands:
    """The table of commands. Every method may raise LedgerUnavailableError.

    Args:
        database: as ``open_database`` gives it.
    """

    def __init__(self, database: Engine) -> None:
        self._database = database

    def leave(self, kind: str, arguments: bytes, *, at: float) -> int:
        """Leave a command; gives its id."""
        values = {"kind": kind, "arguments": arguments, "asked_at": at}
        with transaction(self._database) as connection:
            return int(
                connection.execute(
                    insert(commands).values(values).returning(commands.c.id)
                ).scalar_one()
            )

    def answer(self, id_: int) -> Answer | None:
        """What came of a command, or None while it waits."""
        done = (commands.c.id == id_) & commands.c.done_at.is_not(None)
        with reading(self._database) as connection:
            query = select(commands.c.error, commands.c.answer).where(done)
            row = connection.execute(query).first()
        return None if row is None else Answer(row.error, row.answer or "")

    def withdraw(self, id_: int) -> None:
        """Remove a command, unless it was carried out."""
        with transaction(self._database) as connection:
            waits = (commands.c.id == id_) & commands.c.done_at.is_(None)
            connection.execute(delete(commands).where(waits))

    def waiting(self) -> Sequence[Errand]:
        """The commands that are to be carried out, in the order in which they were left."""
        columns = (commands.c.id, commands.c.kind, commands.c.arguments)
        with reading(self._database) as connection:
            query = select(*columns).where(commands.c.done_at.is_(None)).order_by(commands.c.id)
            return [Errand(*row) for row in connection.execute(query)]

    def close(self, id_: int, answer: Answer, *, at: float) -> None:
        """Say what came of a command."""
        values = {"done_at": at, "error": answer.error, "answer": answer.text}
        with transaction(self._database) as connection:
            connection.execute(update(commands).where(commands.c.id == id_).values(values))

    def forget(self, *, before: float) -> None:
        """Forget the commands that were left before a time, carried out or not."""
        with transaction(self._database) as connection:
            connection.execute(delete(commands).where(commands.c.asked_at < before))
