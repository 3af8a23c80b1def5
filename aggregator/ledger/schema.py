"""The ledger's tables, in portable SQL, as they shall be; ``migrations`` says how to change them.

``tasks``, ``updates`` and ``versions`` are the record that the model is folded from; ``lineages``
is what was folded again without some updates. Most other tables are running totals of the record,
written in the same transactions, so that a page which shows them never has to count it.
"""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

__all__ = [
    "commands",
    "commits",
    "compactions",
    "devices",
    "events",
    "lineages",
    "metadata",
    "participants",
    "publications",
    "quality",
    "rejections",
    "schema_version",
    "tallies",
    "tasks",
    "terms",
    "updates",
    "versions",
]

# SQLite numbers rows by itself only for a column declared INTEGER.
_Id = BigInteger().with_variant(Integer(), "sqlite")

metadata = MetaData()

schema_version = Table(
    "schema_version",
    metadata,
    Column("version", Integer, primary_key=True),
    Column("software", String(64), nullable=False, server_default="unknown"),
)

tasks = Table(
    "tasks",
    metadata,
    Column("task", String(32), primary_key=True),
    Column("manifest", LargeBinary, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("paused", Boolean, nullable=False),
    Column("training", JSON, nullable=False),
    Column("codec", JSON, nullable=False),
    Column("rule", JSON, nullable=False),
)

updates = Table(
    "updates",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("task", ForeignKey("tasks.task"), nullable=False),
    Column("device", String(64), nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("base_version", BigInteger, nullable=False),
    Column("examples", BigInteger, nullable=False),
    Column("payload", LargeBinary, nullable=False),  # Empty once compaction has dropped it.
    Column("size_bytes", Integer, nullable=False),
    Column("metrics", JSON, nullable=False),
    Column("received_at", Double, nullable=False),
    Column("merged_in", BigInteger),
    UniqueConstraint("task", "device", "sequence"),
    Index("updates_by_version", "task", "merged_in", "id"),
    Index("updates_by_task", "task", "id"),
)

rejections = Table(
    "rejections",
    metadata,
    Column("task", String(32), primary_key=True),
    Column("device", String(64), primary_key=True),
    Column("sequence", BigInteger, primary_key=True),
    Column("reason", Integer, nullable=False),
    Column("at", Double, nullable=False),
    Index("rejections_by_device", "device", "reason", "at"),
)

versions = Table(
    "versions",
    metadata,
    Column("task", ForeignKey("tasks.task"), primary_key=True),
    Column("version", BigInteger, primary_key=True),
    Column("digest", String(64), nullable=False, server_default=text("''")),
    Column("sha256", String(64)),
    Column("size_bytes", BigInteger),
    Column("rule", JSON, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("updates", Integer, nullable=False),
    Column("staleness_total", BigInteger, nullable=False),
    Column("origin", JSON(none_as_null=True)),
    Index("versions_by_blob", "sha256"),
)

lineages = Table(
    "lineages",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("task", ForeignKey("tasks.task"), nullable=False),
    Column("excluded", JSON, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("digest", String(64), nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("changes", JSON, nullable=False),
    Column("created_at", Double, nullable=False),
    Index("lineages_by_task", "task", "id"),
    Index("lineages_by_blob", "sha256"),
)

compactions = Table(
    "compactions",
    metadata,
    Column("task", ForeignKey("tasks.task"), primary_key=True),
    Column("dropped_to", BigInteger, nullable=False),
    Column("swept_to", BigInteger, nullable=False),
    Column("warned_to", BigInteger, nullable=False),
    Column("warned_at", Double, nullable=False),
)

publications = Table(
    "publications",
    metadata,
    Column("task", ForeignKey("tasks.task"), primary_key=True),
    Column("version", BigInteger, primary_key=True),
    Column("sha256", String(64), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("exponents", JSON, nullable=False),
    Column("created_at", Double, nullable=False),
    Index("publications_by_blob", "sha256"),
)

participants = Table(
    "participants",
    metadata,
    Column("task", String(32), primary_key=True),
    Column("device", String(64), primary_key=True),
    Column("last_sequence", BigInteger, nullable=False),
    Column("last_version", BigInteger, nullable=False),
    Column("last_seen", Double, nullable=False),
    Column("accepted", BigInteger, nullable=False),
    Column("rejected", BigInteger, nullable=False),
    Column("duplicate", BigInteger, nullable=False),
    Column("bytes", BigInteger, nullable=False),
)

devices = Table(
    "devices",
    metadata,
    Column("device", String(64), primary_key=True),
    Column("state", String(16), nullable=False),
    Column("agent", String(40), nullable=False),
    Column("runtime", String(40), nullable=False),
    Column("at", Double, nullable=False),
)

tallies = Table(
    "tallies",
    metadata,
    Column("task", String(32), primary_key=True),
    Column("kind", String(16), primary_key=True),
    Column("key", BigInteger, primary_key=True),
    Column("value", BigInteger, nullable=False),
)

quality = Table(
    "quality",
    metadata,
    Column("task", String(32), primary_key=True),
    Column("version", BigInteger, primary_key=True),
    Column("metric", String(16), primary_key=True),
    Column("reports", BigInteger, nullable=False),
    Column("total", Double, nullable=False),
)

events = Table(
    "events",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("at", Double, nullable=False),
    Column("kind", String(32), nullable=False),
    Column("task", String(32)),
    Column("device", String(64)),
    Column("detail", Text, nullable=False),
)

commits = Table(
    "commits",
    metadata,
    Column("connection", String(16), primary_key=True),
    Column("mark", String(16), nullable=False),
    Column("at", Double, nullable=False),
)

terms = Table(
    "terms",
    metadata,
    Column("name", String(16), primary_key=True),
    Column("term", BigInteger, nullable=False),
)

commands = Table(
    "commands",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("kind", String(32), nullable=False),
    Column("arguments", LargeBinary, nullable=False),
    Column("asked_at", Double, nullable=False),
    Column("done_at", Double),
    Column("error", String(16)),
    Column("answer", Text),
)
