"""What Alembic does here; it is loaded where tables must change, which a usual start does not."""

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection

__all__ = ["configuration", "stamp", "step_up"]


def configuration(connection: Connection | None = None) -> Config:
    """Alembic's configuration; there is no file of it."""
    config = Config()
    config.set_main_option("script_location", "aggregator.ledger:migrations")
    config.set_main_option("file_template", "v%%(rev)s_%%(slug)s")
    config.attributes["connection"] = connection
    return config


def stamp(connection: Connection, revision: str) -> None:
    """Say that a database is at a revision."""
    command.stamp(configuration(connection), revision)


def step_up(connection: Connection) -> None:
    """Carry out every migration that a database lacks."""
    command.upgrade(configuration(connection), "head")
