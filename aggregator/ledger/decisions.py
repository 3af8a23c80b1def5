"""What was decided on updates before, and that no two processes decide on the same one."""

from collections.abc import Mapping, Sequence

from sqlalchemy import ColumnElement, Connection, bindparam, func, select

from aggregator.ledger.intake import Intake
from aggregator.ledger.records import Decision, UpdateKey
from aggregator.ledger.schema import participants, rejections, tallies, tasks, updates
from aggregator.ledger.turns import DecidedMeanwhileError, take_turns
from aggregator.norms import WINDOW
from wire.messages import Outcome, Refusal

__all__ = ["decide_in_turn", "decisions", "norms_of"]

_FIND_UPDATE = select(updates.c.id).where(
    updates.c.task == bindparam("task"),
    updates.c.device == bindparam("device"),
    updates.c.sequence == bindparam("sequence"),
)
_FIND_REJECTION = select(rejections.c.reason).where(
    rejections.c.task == bindparam("task"),
    rejections.c.device == bindparam("device"),
    rejections.c.sequence == bindparam("sequence"),
)


def norms_of(task: str) -> ColumnElement[bool]:
    """The rows of ``tallies`` that are a task's histogram of norms."""
    return (tallies.c.task == task) & (tallies.c.kind == "norm")


def decisions(connection: Connection, keys: Sequence[UpdateKey]) -> dict[UpdateKey, Decision]:
    """What was decided before; see ``Ledger.decisions``."""
    marks = _highest_sequences(connection, keys)
    # Sequences mostly count up, so one look at the devices settles nearly every key.
    seen = [key for key in keys if key.sequence <= marks.get(key[:2], 0)]
    found = ((key, _decision(connection, key)) for key in seen)
    return {key: decision for key, decision in found if decision is not None}


def decide_in_turn(connection: Connection, intake: Intake) -> None:
    """Wait for other processes that decide on the same devices, and see what they decided."""
    if connection.dialect.name != "postgresql":
        return
    keys = [new.key for new in intake.updates] + [r.key for r in intake.rejections]
    strange = {key.task for key in keys} - intake.known_tasks
    take_turns(connection, [*(f"{key.task}/{key.device}" for key in keys), *strange])
    if decisions(connection, [key for key in keys if key.task in intake.known_tasks]):
        raise DecidedMeanwhileError("an update was decided before")
    made = select(tasks.c.task).where(tasks.c.task.in_(strange))
    if strange and connection.execute(made).first() is not None:
        raise DecidedMeanwhileError("a task was made meanwhile")
    for task, changes in sorted(intake.norms.items()):
        if sum(changes.values()) < 0:
            _forget_once(connection, task, changes)


def _highest_sequences(
    connection: Connection, keys: Sequence[UpdateKey]
) -> dict[tuple[str, str], int]:
    marks = {}
    for task in {key.task for key in keys}:
        query = select(participants.c.device, participants.c.last_sequence).where(
            participants.c.task == task,
            participants.c.device.in_({key.device for key in keys if key.task == task}),
        )
        marks.update({(task, row.device): row.last_sequence for row in connection.execute(query)})
    return marks


def _forget_once(connection: Connection, task: str, changes: Mapping[int, int]) -> None:
    """Let one process halve the histogram of norms when it is full, and no other as well."""
    take_turns(connection, [f"norms of {task}"])
    total = connection.scalar(select(func.sum(tallies.c.value)).where(norms_of(task))) or 0
    if total + sum(changes.values()) < WINDOW // 2:
        raise DecidedMeanwhileError("the norms were halved or forgotten meanwhile")


def _decision(connection: Connection, key: UpdateKey) -> Decision | None:
    if connection.execute(_FIND_UPDATE, key._asdict()).first() is not None:
        return Decision(outcome=Outcome.ACCEPTED)
    reason = connection.execute(_FIND_REJECTION, key._asdict()).scalar()
    return None if reason is None else Decision(outcome=Outcome.REJECTED, reason=Refusal(reason))
