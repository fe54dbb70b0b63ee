"""The table of tombstones; triggers, grants and the dropping itself are in the migration."""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Date,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
)

from maas.audit.infrastructure.checkpoint_tables import only_times_of_ours
from maas.shared.infrastructure.database import mapper_registry

audit_tombstones = Table(
    "audit_tombstones",
    mapper_registry.metadata,
    Column("n", BigInteger, primary_key=True, autoincrement=False),
    Column("retention_class", Text, nullable=False),
    Column("period", Date, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("first_seq", BigInteger, nullable=False),
    Column("last_seq", BigInteger, nullable=False),
    Column("members", LargeBinary, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("archive_name", Text),
    Column("archive_sha256", LargeBinary),
    Column("archive_size", BigInteger),
    Column("policy_days", Integer, nullable=False),
    Column("actor", Text, nullable=False),
    Column("decided_at", DateTime(timezone=True), nullable=False),
    Column("key_id", ForeignKey("audit_signing_keys.key_id"), nullable=False),
    Column("previous", LargeBinary, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    Column("signature", LargeBinary, nullable=False),
    # Which rows, packed: `members` is its SHA-256.
    Column("packed", LargeBinary, nullable=False),
    Index(None, "retention_class", "period"),
    CheckConstraint("first_seq <= last_seq", name="seq_order"),
    CheckConstraint(
        "period >= '2000-01-01' AND period < '2200-01-01' AND extract(day FROM period) = 1",
        name="period",
    ),
    only_times_of_ours("decided_at"),
)
