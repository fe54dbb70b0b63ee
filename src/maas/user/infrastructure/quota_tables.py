"""The tables of quotas, all under row-level security; their functions: migrations 0018 and 0032.

`quota_balances` and `quota_holds` are written by the functions alone. What a hold lies on is not
kept: it is every quota of its payer, in the period of its making.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    Interval,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from maas.shared.infrastructure.database import mapper_registry
from maas.user.domain.quota import Quota

metadata = mapper_registry.metadata

quotas = Table(
    "quotas",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("tenant_id", Uuid, ForeignKey("tenants.id"), nullable=False),
    Column("scope", Text, nullable=False),
    Column("subject_id", Uuid, nullable=False),
    Column("meter", Text, nullable=False),
    Column("period", Text, nullable=False),
    Column("currency", Text),
    Column("limit_amount", BigInteger, nullable=False),
    Column("version", Integer, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("updated_at", DateTime(timezone=True), nullable=False),
    UniqueConstraint(
        "tenant_id", "subject_id", "scope", "meter", "period", name="uq_quotas_subject"
    ),
    CheckConstraint("scope IN ('tenant', 'user', 'key')", name="scope"),
    CheckConstraint("meter IN ('requests', 'tokens', 'cost', 'storage')", name="meter"),
    CheckConstraint("period = 'total' OR period = 'month' AND meter <> 'storage'", name="period"),
    CheckConstraint(
        "(meter = 'cost') = (currency IS NOT NULL) AND currency ~ '^[A-Z]{3}$'", name="currency"
    ),
    CheckConstraint("limit_amount >= 0", name="limit_amount"),
)

quota_balances = Table(
    "quota_balances",
    metadata,
    Column("quota_id", Uuid, primary_key=True),
    Column("period_start", Date, primary_key=True),
    Column("tenant_id", Uuid, nullable=False),
    Column("settled", BigInteger, nullable=False),
    Column("held", BigInteger, nullable=False),
    Column("is_closed", Boolean, nullable=False),
    Column("alerted", SmallInteger, nullable=False),
    CheckConstraint("settled >= 0 AND held >= 0", name="amounts"),
)

quota_holds = Table(
    "quota_holds",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("tenant_id", Uuid, nullable=False),
    Column("account_id", Uuid, nullable=False),
    Column("actor_kind", Text, nullable=False),
    Column("api_key_id", Uuid),
    Column("model", Text, nullable=False),
    Column("request_id", Text, nullable=False),
    Column("requests", BigInteger, nullable=False),
    Column("tokens", BigInteger, nullable=False),
    Column("cost_nanos", BigInteger, nullable=False),
    Column("currency", Text),
    Column("storage_bytes", BigInteger, nullable=False),
    Column("progress_tokens", BigInteger),
    Column("progress_cost_nanos", BigInteger),
    # What is never settled is not stored: then an expired hold was of nothing.
    Column("progress_storage_bytes", BigInteger, server_default=text("0")),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("lease", Interval, nullable=False),
    Column("lease_until", DateTime(timezone=True), nullable=False),
    # What an event says of it if it expires; without it, it leaves none.
    Column("audited_as", JSONB),
    Index("ix_quota_holds_lease_until", "lease_until"),
    # Asked when a quota is made while calls are under way.
    Index("ix_quota_holds_tenant_id", "tenant_id"),
)

quota_alerts = Table(
    "quota_alerts",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("tenant_id", Uuid, nullable=False),
    Column("quota_id", Uuid, nullable=False),
    Column("scope", Text, nullable=False),
    Column("subject_id", Uuid, nullable=False),
    Column("meter", Text, nullable=False),
    Column("period", Text, nullable=False),
    Column("period_start", Date, nullable=False),
    Column("currency", Text),
    Column("threshold", SmallInteger, nullable=False),
    Column("limit_amount", BigInteger, nullable=False),
    Column("settled", BigInteger, nullable=False),
    Column("is_overrun", Boolean, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
)
"""What the settling transaction found reached; whoever tells of it deletes the row as it does."""

mapper_registry.map_imperatively(Quota, quotas, eager_defaults=False)
