"""A digest for each version, and a snapshot for some only.

Versions of before have an empty digest: what their merges changed was not kept.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Change the table."""
    with op.batch_alter_table("versions") as table:
        table.add_column(
            sa.Column("digest", sa.String(64), nullable=False, server_default=sa.text("''"))
        )
        table.alter_column("sha256", existing_type=sa.String(64), nullable=True)
        table.alter_column("size_bytes", existing_type=sa.BigInteger(), nullable=True)
