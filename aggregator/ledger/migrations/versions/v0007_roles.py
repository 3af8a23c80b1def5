"""What processes of different roles need: terms of the merge, and commands for it.

And the updates that wait can be had in their order without a look at the others.
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Make the tables, and the index anew."""
    number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "terms",
        sa.Column("name", sa.String(16), primary_key=True),
        sa.Column("term", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "commands",
        sa.Column("id", number, primary_key=True),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("arguments", sa.LargeBinary, nullable=False),
        sa.Column("asked_at", sa.Double, nullable=False),
        sa.Column("done_at", sa.Double),
        sa.Column("error", sa.String(16)),
        sa.Column("answer", sa.Text),
    )
    op.drop_index("updates_by_version", "updates")
    op.create_index("updates_by_version", "updates", ["task", "merged_in", "id"])
