"""How a database is brought from any older form to the tables of ``schema``; see ``upgrade``.

To change the tables:

1. Change ``aggregator/ledger/schema.py``, which describes them as they shall be.
2. ``make migration MESSAGE="say what changes"`` writes ``versions/v0007_say_what_changes.py``: the
   difference between what the migrations make so far and ``schema``, found by Alembic.
3. Read it and correct it. A new column of an old table must be nullable or have a
   ``server_default``; what old rows shall hold is an UPDATE in the same file. Change a table inside
   ``op.batch_alter_table``: SQLite can only copy it. Name constraints and indexes.
4. Run ``tests/aggregator/ledger``: there the migrations must make what ``schema`` says, on SQLite
   and PostgreSQL, from nothing and from the oldest form there is with its rows kept.

A migration that has left the house is never changed; the next one corrects it. Two made at the same
time have the same ``down_revision``: renumber the later one and let it follow the other.
"""

from aggregator.ledger.migrations.runner import MigrationError, head, revision_of, upgrade

__all__ = ["MigrationError", "head", "revision_of", "upgrade"]
