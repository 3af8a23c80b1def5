"""Each version has a digest of what made it, and only some have a snapshot.

The chain of digests starts anew at each version of before, from its snapshot: whether those were
folded as they are recorded can no longer be checked.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the digest, and let versions be without a snapshot."""
    with op.batch_alter_table("versions") as table:
        table.add_column(sa.Column("digest", sa.String(64), nullable=True))
        table.alter_column("sha256", existing_type=sa.String(64), nullable=True)
        table.alter_column("size_bytes", existing_type=sa.BigInteger, nullable=True)
    op.execute("UPDATE versions SET digest = sha256")
    with op.batch_alter_table("versions") as table:
        table.alter_column("digest", existing_type=sa.String(64), nullable=False)
