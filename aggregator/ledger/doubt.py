"""A commit whose answer never came.

When a connection to PostgreSQL breaks while it commits, the transaction may be there or not. To
call it failed would have the engine write the same again, beside what it does not know it has. So
each transaction that writes leaves a mark in ``commits``, in a row of its connection's own, and the
mark is looked for as soon as the database is back. The number of the transaction would not do: a
server that crashed gives it again.
"""

import logging
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine, func, literal, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError

from aggregator.ledger.schema import commits

__all__ = ["UnknownOutcomeError", "committing"]

PATIENCE_S = 90.0
RETRY_AFTER_S = 0.5
ROW = "rivulet.commits"

_log = logging.getLogger(__name__)


class UnknownOutcomeError(Exception):
    """The database did not come back to say whether a transaction was committed."""


@contextmanager
def committing(connection: Connection) -> Iterator[None]:
    """A transaction around a block; when it ends without an error, it is committed for certain.

    Raises:
        UnknownOutcomeError: for a minute and a half the database could not be asked.
        sqlalchemy.exc.DBAPIError: as ever; then nothing was written.
    """
    with connection.begin() as transaction:
        yield
        mark = _leave_mark(connection) if connection.dialect.name == "postgresql" else None
        try:
            transaction.commit()
        except DBAPIError as error:
            if mark is None or not error.connection_invalidated:
                raise
            if not _was_committed(connection.engine, *mark):
                raise


def _leave_mark(connection: Connection) -> tuple[str, str] | None:
    """Mark the transaction as (row, mark); one that has changed nothing yet needs none."""
    row, mark = connection.info.setdefault(ROW, secrets.token_hex(8)), secrets.token_hex(8)
    wrote = func.pg_current_xact_id_if_assigned().is_not(None)
    values = select(literal(row), literal(mark), literal(time.time())).where(wrote)
    new = insert(commits).from_select(["connection", "mark", "at"], values)
    changes = {"mark": new.excluded.mark, "at": new.excluded.at}
    marking = new.on_conflict_do_update(index_elements=["connection"], set_=changes)
    return (row, mark) if connection.execute(marking).rowcount else None


def _was_committed(engine: Engine, row: str, mark: str) -> bool:
    _log.warning("the database went away during a commit; it is asked whether that was in time")
    # Writing the row waits for the old connection's transaction, if the server still has it open.
    new = insert(commits).values(connection=row, mark="", at=time.time())
    same = {"mark": commits.c.mark}
    kept = new.on_conflict_do_update(index_elements=["connection"], set_=same)
    look = kept.returning(commits.c.mark)
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        try:
            with engine.begin() as connection:
                return bool(connection.scalar(look) == mark)
        except DBAPIError:
            time.sleep(RETRY_AFTER_S)
    raise UnknownOutcomeError(
        f"the database went away during a commit and was not back after {PATIENCE_S:.0f} seconds; "
        "start the service again when it is: it goes on from what was written"
    )
