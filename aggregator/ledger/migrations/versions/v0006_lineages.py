"""Versions that no merge made, lineages, and how far payloads were dropped."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add the column and make the tables."""
    op.add_column("versions", sa.Column("origin", sa.JSON(none_as_null=True)))
    op.create_table(
        "lineages",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True),
        sa.Column("task", sa.String(32), sa.ForeignKey("tasks.task"), nullable=False),
        sa.Column("excluded", sa.JSON, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("changes", sa.JSON, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
    )
    op.create_index("lineages_by_task", "lineages", ["task", "id"])
    op.create_index("lineages_by_blob", "lineages", ["sha256"])
    op.create_table(
        "compactions",
        sa.Column("task", sa.String(32), sa.ForeignKey("tasks.task"), primary_key=True),
        sa.Column("dropped_to", sa.BigInteger, nullable=False),
        sa.Column("swept_to", sa.BigInteger, nullable=False),
        sa.Column("warned_to", sa.BigInteger, nullable=False),
        sa.Column("warned_at", sa.Double, nullable=False),
    )
