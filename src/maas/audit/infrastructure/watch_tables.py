"""Where the watch stands, what it remembers, and what it raised; policies are in the migration.

A subject in `audit_watch_points` and `audit_watch_quiet` is a keyed digest and goes within days: no
name and no address is kept but in `audit_personal`, where it is erased.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    func,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from maas.audit.domain.rules_settings import RuleSetting
from maas.shared.infrastructure.database import mapper_registry

_metadata = mapper_registry.metadata
_instant = DateTime(timezone=True)

audit_watch = Table(
    "audit_watch",
    _metadata,
    Column("id", SmallInteger, primary_key=True, autoincrement=False),
    Column("seq", BigInteger, nullable=False),
    CheckConstraint("id = 1", name="single"),
)

audit_watch_points = Table(
    "audit_watch_points",
    _metadata,
    Column("tenant_id", Uuid, primary_key=True),
    Column("rule", Text, primary_key=True),
    Column("subject", LargeBinary, primary_key=True),
    Column("event_id", Uuid, primary_key=True),
    Column("occurred_at", _instant, nullable=False),
    Column("noted_at", _instant, nullable=False, server_default=func.clock_timestamp()),
    Index(None, "noted_at"),
)

audit_watch_quiet = Table(
    "audit_watch_quiet",
    _metadata,
    Column("tenant_id", Uuid, primary_key=True),
    Column("rule", Text, primary_key=True),
    Column("subject", LargeBinary, primary_key=True),
    Column("since", _instant, primary_key=True),
    Column("until", _instant, nullable=False),
    Column("version", Integer, nullable=False),
    Column("noted_at", _instant, nullable=False, server_default=func.clock_timestamp()),
    Index(None, "noted_at"),
)

audit_rule_settings = Table(
    "audit_rule_settings",
    _metadata,
    Column("tenant_id", Uuid, primary_key=True),
    Column("rule", Text, primary_key=True),
    Column("is_enabled", Boolean, nullable=False),
    Column("parameters", JSONB, nullable=False),
    Column("updated_at", _instant, nullable=False),
    Column("version", Integer, nullable=False),
)

audit_alerts = Table(
    "audit_alerts",
    _metadata,
    Column("id", Uuid, primary_key=True),
    Column("tenant_id", Uuid, nullable=False),
    Column("rule", Text, nullable=False),
    Column("subject_kind", Text, nullable=False),
    Column("subject_id", Text),
    Column("count", Integer, nullable=False),
    Column("first_at", _instant, nullable=False),
    Column("last_at", _instant, nullable=False),
    Column("trigger_id", Uuid, nullable=False),
    Column("event_ids", ARRAY(Uuid), nullable=False),
    Column("raised_at", _instant, nullable=False),
    Column("muted_until", _instant),
    UniqueConstraint("id", "tenant_id"),
    UniqueConstraint("rule", "trigger_id"),
    Index(None, "tenant_id", "raised_at", "id"),
)

mapper_registry.map_imperatively(RuleSetting, audit_rule_settings, eager_defaults=False)
