"""The table of how suppliers are doing."""

from sqlalchemy import (
    CheckConstraint,
    Column,
    DateTime,
    ForeignKeyConstraint,
    Integer,
    Table,
    Text,
    Uuid,
)

from maas.shared.infrastructure.database import mapper_registry

provider_health = Table(
    "provider_health",
    mapper_registry.metadata,
    Column("provider_id", Uuid, primary_key=True),
    Column("tenant_id", Uuid, nullable=False),
    Column("status", Text, nullable=False),
    # Which outcomes there are, the code says: each release may know more.
    Column("outcome", Text, nullable=False),
    Column("since", DateTime(timezone=True)),
    Column("checked_at", DateTime(timezone=True), nullable=False),
    Column("duration_ms", Integer, nullable=False),
    Column("failures", Integer, nullable=False),
    CheckConstraint("status IN ('unknown', 'healthy', 'unhealthy')", name="status"),
    ForeignKeyConstraint(
        ["provider_id", "tenant_id"], ["providers.id", "providers.tenant_id"], ondelete="CASCADE"
    ),
)
