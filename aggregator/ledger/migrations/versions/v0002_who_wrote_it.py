"""The database says which software wrote it.

Software from before there were migrations refuses a ``version`` other than 1; it must not write
here any more. From here on Alembic's own table counts, and ``version`` stays 2.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the column."""
    with op.batch_alter_table("schema_version") as table:
        table.add_column(
            sa.Column("software", sa.String(64), nullable=False, server_default="unknown")
        )
    op.execute("UPDATE schema_version SET version = 2")
