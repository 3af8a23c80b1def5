"""What devices get of a version.

For a while the table was made without a migration, so it may be there.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "publications",
        sa.Column("task", sa.String(32), sa.ForeignKey("tasks.task"), primary_key=True),
        sa.Column("version", sa.BigInteger, primary_key=True),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("exponents", sa.JSON, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        if_not_exists=True,
    )
    op.create_index("publications_by_blob", "publications", ["sha256"], if_not_exists=True)
