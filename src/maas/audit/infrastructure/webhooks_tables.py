"""Webhooks, how each one's queue stands, and their deliveries."""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY

from maas.audit.domain.webhooks import Webhook
from maas.shared.infrastructure.database import mapper_registry

_metadata = mapper_registry.metadata
_instant = DateTime(timezone=True)

audit_webhooks = Table(
    "audit_webhooks",
    _metadata,
    Column("id", Uuid, primary_key=True),
    Column("tenant_id", Uuid, nullable=False),
    Column("name", Text, nullable=False),
    Column("url", Text, nullable=False),
    Column("rules", ARRAY(Text), nullable=False),
    Column("status", Text, nullable=False),
    Column("status_reason", Text),
    Column("secret", LargeBinary, nullable=False),
    Column("previous_secret", LargeBinary),
    Column("previous_until", _instant),
    Column("created_at", _instant, nullable=False),
    Column("updated_at", _instant, nullable=False),
    Column("version", Integer, nullable=False),
    CheckConstraint("status IN ('active', 'disabled')", name="status"),
    # What refers to a row names its tenant as well: foreign keys see past row security.
    UniqueConstraint("id", "tenant_id"),
    Index(None, "tenant_id", "created_at", "id"),
)

# Beside the webhook, so that a failed delivery changes nothing of what people edit.
audit_webhook_queues = Table(
    "audit_webhook_queues",
    _metadata,
    Column("webhook_id", Uuid, primary_key=True),
    Column("tenant_id", Uuid, nullable=False),
    Column("failures", Integer, nullable=False, server_default=text("0")),
    Column("next_attempt_at", _instant, nullable=False),
    Column("tried_at", _instant),
    ForeignKeyConstraint(
        ["webhook_id", "tenant_id"],
        ["audit_webhooks.id", "audit_webhooks.tenant_id"],
        ondelete="CASCADE",
    ),
)

audit_deliveries = Table(
    "audit_deliveries",
    _metadata,
    Column("id", Uuid, primary_key=True),
    Column("tenant_id", Uuid, nullable=False),
    Column("webhook_id", Uuid, nullable=False),
    # None for a test.
    Column("alert_id", Uuid),
    Column("position", BigInteger, Identity(always=True), nullable=False),
    Column("status", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("created_at", _instant, nullable=False),
    Column("last_attempt_at", _instant),
    Column("finished_at", _instant),
    Column("last_status", Integer),
    Column("last_error", Text),
    ForeignKeyConstraint(
        ["webhook_id", "tenant_id"],
        ["audit_webhooks.id", "audit_webhooks.tenant_id"],
        ondelete="CASCADE",
    ),
    ForeignKeyConstraint(["alert_id", "tenant_id"], ["audit_alerts.id", "audit_alerts.tenant_id"]),
    CheckConstraint("status IN ('pending', 'delivered', 'failed')", name="status"),
    Index(None, "webhook_id", "created_at", "id"),
    Index(
        "ix_audit_deliveries_pending",
        "webhook_id",
        "position",
        postgresql_where=text("status = 'pending'"),
    ),
    Index(None, "finished_at", postgresql_where=text("status <> 'pending'")),
    Index(None, "alert_id"),
)

mapper_registry.map_imperatively(Webhook, audit_webhooks, eager_defaults=False)
