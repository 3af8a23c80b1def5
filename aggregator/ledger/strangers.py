"""Refusals of updates for tasks that do not exist here.

They stand like any other: the device has put the delta back into its residual, and a second copy
of the message may still be on its way when the task is made. But anybody can name tasks without
end. So a device has no participant row for such a task, and only its newest refusals are kept: far
more than a device has messages on their way.
"""

from collections.abc import Sequence

from sqlalchemy import Connection, delete, func, insert, literal, select

from aggregator.ledger.database import upsert
from aggregator.ledger.records import Rejection
from aggregator.ledger.schema import participants, rejections
from wire.messages import Refusal

__all__ = ["meet_again", "remember"]

KEPT_PER_DEVICE = 1_000


def remember(connection: Connection, refused: Sequence[Rejection]) -> None:
    """Record refusals as UNKNOWN_TASK, and forget each device's oldest beyond a thousand.

    Refusals of the same instant are forgotten together, so a device may have a batch more.
    """
    if not refused:
        return
    rows = [{**r.key._asdict(), "reason": int(r.reason), "at": r.at} for r in refused]
    connection.execute(upsert(connection.dialect.name, rejections).on_conflict_do_nothing(), rows)
    for device in sorted({rejection.key.device for rejection in refused}):
        mine = (rejections.c.device == device) & (rejections.c.reason == int(Refusal.UNKNOWN_TASK))
        newest = select(rejections.c.at).where(mine).order_by(rejections.c.at.desc())
        oldest_kept = newest.offset(KEPT_PER_DEVICE - 1).limit(1).scalar_subquery()
        connection.execute(delete(rejections).where(mine, rejections.c.at < oldest_kept))


def meet_again(connection: Connection, task: str) -> None:
    """Give a new task the devices that were refused before it was made.

    Without their highest sequences nobody would look for the refusals.
    """
    known = select(
        rejections.c.task,
        rejections.c.device,
        func.max(rejections.c.sequence),
        literal(-1),
        func.max(rejections.c.at),
        literal(0),
        func.count(),
        literal(0),
        literal(0),
    ).where(rejections.c.task == task)
    columns = [column.name for column in participants.columns]
    grouped = known.group_by(rejections.c.task, rejections.c.device)
    connection.execute(insert(participants).from_select(columns, grouped))
