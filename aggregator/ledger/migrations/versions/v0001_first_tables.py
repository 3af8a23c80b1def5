"""The tables as they were before there were migrations."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make them."""
    number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    version = op.create_table("schema_version", sa.Column("version", sa.Integer, primary_key=True))
    op.bulk_insert(version, [{"version": 1}])
    op.create_table(
        "tasks",
        sa.Column("task", sa.String(32), primary_key=True),
        sa.Column("manifest", sa.LargeBinary, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("paused", sa.Boolean, nullable=False),
        sa.Column("training", sa.JSON, nullable=False),
        sa.Column("codec", sa.JSON, nullable=False),
        sa.Column("rule", sa.JSON, nullable=False),
    )
    op.create_table(
        "updates",
        sa.Column("id", number, primary_key=True),
        sa.Column("task", sa.String(32), sa.ForeignKey("tasks.task"), nullable=False),
        sa.Column("device", sa.String(64), nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("base_version", sa.BigInteger, nullable=False),
        sa.Column("examples", sa.BigInteger, nullable=False),
        sa.Column("payload", sa.LargeBinary, nullable=False),
        sa.Column("size_bytes", sa.Integer, nullable=False),
        sa.Column("metrics", sa.JSON, nullable=False),
        sa.Column("received_at", sa.Double, nullable=False),
        sa.Column("merged_in", sa.BigInteger),
        sa.UniqueConstraint("task", "device", "sequence"),
    )
    op.create_index("updates_by_version", "updates", ["task", "merged_in"])
    op.create_index("updates_by_task", "updates", ["task", "id"])
    op.create_table(
        "rejections",
        sa.Column("task", sa.String(32), primary_key=True),
        sa.Column("device", sa.String(64), primary_key=True),
        sa.Column("sequence", sa.BigInteger, primary_key=True),
        sa.Column("reason", sa.Integer, nullable=False),
        sa.Column("at", sa.Double, nullable=False),
    )
    op.create_index("rejections_by_device", "rejections", ["device", "reason", "at"])
    op.create_table(
        "versions",
        sa.Column("task", sa.String(32), sa.ForeignKey("tasks.task"), primary_key=True),
        sa.Column("version", sa.BigInteger, primary_key=True),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("rule", sa.JSON, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("updates", sa.Integer, nullable=False),
        sa.Column("staleness_total", sa.BigInteger, nullable=False),
    )
    op.create_index("versions_by_blob", "versions", ["sha256"])
    op.create_table(
        "participants",
        sa.Column("task", sa.String(32), primary_key=True),
        sa.Column("device", sa.String(64), primary_key=True),
        sa.Column("last_sequence", sa.BigInteger, nullable=False),
        sa.Column("last_version", sa.BigInteger, nullable=False),
        sa.Column("last_seen", sa.Double, nullable=False),
        sa.Column("accepted", sa.BigInteger, nullable=False),
        sa.Column("rejected", sa.BigInteger, nullable=False),
        sa.Column("duplicate", sa.BigInteger, nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "devices",
        sa.Column("device", sa.String(64), primary_key=True),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("agent", sa.String(40), nullable=False),
        sa.Column("runtime", sa.String(40), nullable=False),
        sa.Column("at", sa.Double, nullable=False),
    )
    op.create_table(
        "tallies",
        sa.Column("task", sa.String(32), primary_key=True),
        sa.Column("kind", sa.String(16), primary_key=True),
        sa.Column("key", sa.BigInteger, primary_key=True),
        sa.Column("value", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "quality",
        sa.Column("task", sa.String(32), primary_key=True),
        sa.Column("version", sa.BigInteger, primary_key=True),
        sa.Column("metric", sa.String(16), primary_key=True),
        sa.Column("reports", sa.BigInteger, nullable=False),
        sa.Column("total", sa.Double, nullable=False),
    )
    op.create_table(
        "events",
        sa.Column("id", number, primary_key=True),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("task", sa.String(32)),
        sa.Column("device", sa.String(64)),
        sa.Column("detail", sa.Text, nullable=False),
    )
