"""The rollups that the database keeps by itself; trigger, policies and functions: migration 0012.

Each row counts events of one partition: `period` is the month of `recorded_at`. Hours, days and
weeks (from Monday on) are those of `occurred_at`, in UTC.
"""

from sqlalchemy import (
    BigInteger,
    Column,
    Date,
    DateTime,
    Index,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
)

from maas.shared.infrastructure.database import mapper_registry


def _rollup(name: str, *subject: Column[object]) -> Table:
    keys = ["tenant_id", *(column.name for column in subject), "retention_class", "period"]
    return Table(
        name,
        mapper_registry.metadata,
        Column("tenant_id", Uuid, nullable=False),
        *subject,
        Column("retention_class", Text, nullable=False),
        Column("period", Date, nullable=False),
        Column("events", BigInteger, nullable=False),
        Column("failures", BigInteger, nullable=False),
        Column("denials", BigInteger, nullable=False),
        Column("newest_seq", BigInteger, nullable=False),
        UniqueConstraint(*keys, name=f"uq_{name}", postgresql_nulls_not_distinct=True),
    )


def _by_actor(name: str, bucket: str) -> Table:
    return _rollup(
        name,
        Column(bucket, Date, nullable=False),
        Column("actor_kind", Text, nullable=False),
        Column("actor_id", Uuid),
    )


audit_rollup_hours = _rollup(
    "audit_rollup_hours",
    Column("hour", DateTime(timezone=True), nullable=False),
    Column("action", Text(collation="C"), nullable=False),
)
audit_rollup_days = _by_actor("audit_rollup_days", "day")
audit_rollup_weeks = _by_actor("audit_rollup_weeks", "week")
Index(None, audit_rollup_days.c.tenant_id, audit_rollup_days.c.actor_id)
