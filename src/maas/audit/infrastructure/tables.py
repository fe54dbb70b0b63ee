"""The trail's tables; partitions, policies, triggers and functions are in the migration."""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    Identity,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, INET, JSONB

from maas.audit.infrastructure.checkpoint_tables import only_times_of_ours
from maas.shared.infrastructure.database import mapper_registry

_metadata = mapper_registry.metadata
_instant = DateTime(timezone=True)

audit_outbox = Table(
    "audit_outbox",
    _metadata,
    Column("event_id", Uuid, primary_key=True),
    Column("tenant_id", Uuid, nullable=False),
    Column("payload", LargeBinary, nullable=False),
    Column("personal", JSONB, nullable=False),
    Column("duration_ms", Integer),
    Column("created_at", _instant, nullable=False, server_default=func.clock_timestamp()),
    Index(None, "created_at", "event_id"),
)

audit_log = Table(
    "audit_log",
    _metadata,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("recorded_at", _instant, primary_key=True),
    Column("retention_class", Text, primary_key=True),
    Column("event_id", Uuid, nullable=False),
    Column("tenant_id", Uuid, nullable=False),
    Column("occurred_at", _instant, nullable=False),
    Column("actor_kind", Text, nullable=False),
    Column("actor_id", Uuid),
    Column("session_id", Uuid),
    Column("api_key_id", Uuid),
    # By bytes, so that a prefix is a range: row-level security lets no LIKE near an index.
    Column("action", Text(collation="C"), nullable=False),
    Column("resource_kind", Text),
    Column("resource_id", Text),
    Column("outcome", Text, nullable=False),
    Column("reason", Text),
    Column("request_id", Text, nullable=False),
    Column("duration_ms", Integer),
    Column("payload", LargeBinary, nullable=False),
    Index(None, "event_id"),
    Index(None, "tenant_id", "occurred_at", "event_id"),
    Index(None, "tenant_id", "actor_id", "occurred_at", "event_id"),
    Index(None, "tenant_id", "action", "occurred_at", "event_id"),
    # The convention's name would be longer than PostgreSQL keeps.
    Index(
        "ix_audit_log_tenant_id_resource",
        "tenant_id",
        "resource_kind",
        "resource_id",
        "occurred_at",
        "event_id",
    ),
    Index("ix_audit_log_request", "tenant_id", "request_id", "occurred_at", "event_id"),
    Index(
        "ix_audit_log_actor_action", "tenant_id", "actor_id", "action", "occurred_at", "event_id"
    ),
    Index(
        "ix_audit_log_actor_outcome",
        "tenant_id",
        "actor_id",
        "outcome",
        "occurred_at",
        "event_id",
        postgresql_where=text("outcome <> 'success'"),
    ),
    Index(
        "ix_audit_log_action_outcome",
        "tenant_id",
        "outcome",
        "action",
        "occurred_at",
        "event_id",
        postgresql_where=text("outcome <> 'success'"),
    ),
    Index(
        "ix_audit_log_session",
        "tenant_id",
        "session_id",
        "occurred_at",
        "event_id",
        postgresql_where=text("session_id IS NOT NULL"),
    ),
    Index(
        "ix_audit_log_api_key",
        "tenant_id",
        "api_key_id",
        "occurred_at",
        "event_id",
        postgresql_where=text("api_key_id IS NOT NULL"),
    ),
    Index(
        "ix_audit_log_reason",
        "tenant_id",
        "reason",
        "occurred_at",
        "event_id",
        postgresql_where=text("reason IS NOT NULL"),
    ),
    Index(
        None,
        "tenant_id",
        "outcome",
        "occurred_at",
        "event_id",
        postgresql_where=text("outcome <> 'success'"),
    ),
    only_times_of_ours("recorded_at", "occurred_at"),
    postgresql_partition_by="LIST (retention_class)",
)

audit_chain = Table(
    "audit_chain",
    _metadata,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("recorded_at", _instant, nullable=False),
    Column("leaf", LargeBinary, nullable=False),
    Column("row_hash", LargeBinary, nullable=False),
    only_times_of_ours("recorded_at"),
)

audit_head = Table(
    "audit_head",
    _metadata,
    Column("id", SmallInteger, primary_key=True, autoincrement=False),
    Column("seq", BigInteger, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    CheckConstraint("id = 1", name="single"),
)

audit_dedup = Table(
    "audit_dedup",
    _metadata,
    Column("event_id", Uuid, primary_key=True),
    Column("recorded_at", _instant, nullable=False),
    Index(None, "recorded_at"),
)

audit_personal = Table(
    "audit_personal",
    _metadata,
    Column("event_id", Uuid, primary_key=True),
    Column("tenant_id", Uuid, nullable=False),
    Column("actor_name", Text),
    Column("email", Text),
    Column("address", INET),
    Column("user_agent", Text),
    Column("salt", LargeBinary, nullable=False),
    # When its event was, so that what is found here comes in the order of the list.
    Column("occurred_at", _instant),
    Index("ix_audit_personal_address", "tenant_id", "address", "occurred_at", "event_id"),
    Index(
        "ix_audit_personal_actor_name",
        "tenant_id",
        "actor_name",
        "occurred_at",
        "event_id",
        postgresql_where=text("actor_name IS NOT NULL"),
    ),
    Index(
        "ix_audit_personal_email",
        "tenant_id",
        "email",
        "occurred_at",
        "event_id",
        postgresql_where=text("email IS NOT NULL"),
    ),
)

audit_terms = Table(
    "audit_terms",
    _metadata,
    Column("tenant_id", Uuid, primary_key=True),
    Column("field", Text, primary_key=True),
    Column("term", Text, primary_key=True),
    Column("leads_to", Text, primary_key=True, server_default=text("''")),
    CheckConstraint("field IN ('action', 'reason', 'name', 'email', 'kind')", name="field"),
)
Index(
    "ix_audit_terms_search",
    func.search_grams(audit_terms.c.term, text("NULL")),
    postgresql_using="gin",
    postgresql_with={"fastupdate": "off"},
)

audit_dead_letter = Table(
    "audit_dead_letter",
    _metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("source", Text, nullable=False),
    Column("entry_id", Text, nullable=False),
    # Name and value by turns, just as they came.
    Column("fields", ARRAY(LargeBinary), nullable=False),
    Column("error", Text, nullable=False),
    Column("created_at", _instant, nullable=False, server_default=func.clock_timestamp()),
    CheckConstraint("source IN ('stream', 'outbox')", name="source"),
    UniqueConstraint("source", "entry_id"),
)
