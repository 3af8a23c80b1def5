"""Writes a migration: the difference between the migrations so far and ``schema``."""

import sys
import tempfile
from pathlib import Path

from alembic import command
from sqlalchemy import create_engine

from aggregator.ledger.migrations.runner import head, upgrade
from aggregator.ledger.migrations.steps import configuration

__all__: list[str] = []


def _write(message: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        engine = create_engine(f"sqlite:///{Path(folder) / 'ledger.db'}")
        upgrade(engine)
        with engine.connect() as connection:
            following = f"{int(head()) + 1:04d}"
            command.revision(
                configuration(connection), message, autogenerate=True, rev_id=following
            )
        engine.dispose()


if len(sys.argv) != 2 or not sys.argv[1].strip():
    sys.exit('say what changes: make migration MESSAGE="add a column"')
_write(sys.argv[1].strip())
