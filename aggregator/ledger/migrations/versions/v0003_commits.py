"""A mark of each connection's last commit, for one whose answer never came."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "commits",
        sa.Column("connection", sa.String(16), primary_key=True),
        sa.Column("mark", sa.String(16), nullable=False),
        sa.Column("at", sa.Double, nullable=False),
    )
