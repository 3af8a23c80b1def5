"""Terms of office: a merge whose lock went to another can write nothing any more.

A process learns late that it has lost a lock: it was stopped, or cut off from the database for a
while. So whoever takes over begins a new term, and every transaction of a merge makes sure that its
own term has not ended, in a way that the next one must wait for.
"""

from sqlalchemy import Connection, select

from aggregator.ledger.database import LedgerError, upsert
from aggregator.ledger.schema import terms

__all__ = ["SupersededError", "begin_term", "keep_term"]

NAME = "merge"


class SupersededError(LedgerError):
    """Another process has taken over. Nothing was written, and nothing will be."""


def begin_term(connection: Connection) -> int:
    """End every other term; waits for transactions that are under way in them."""
    new = upsert(connection.dialect.name, terms).values(name=NAME, term=1)
    following = {"term": terms.c.term + 1}
    begun = new.on_conflict_do_update(index_elements=["name"], set_=following)
    return int(connection.execute(begun.returning(terms.c.term)).scalar_one())


def keep_term(connection: Connection, term: int) -> None:
    """Let no new term begin before this transaction ends.

    Raises:
        SupersededError: one has begun already.
    """
    current = select(terms.c.term).where(terms.c.name == NAME).with_for_update(read=True)
    if connection.scalar(current) != term:
        raise SupersededError("another aggregator has taken over the merging")
