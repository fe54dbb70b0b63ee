"""Whose personal fields are to be erased, and how far that has come.

Rows stay: events of such an actor that are flushed later leave no personal fields either.
"""

from sqlalchemy import Column, DateTime, Index, Table, Text, Uuid, func
from sqlalchemy.dialects.postgresql import ARRAY

from maas.shared.infrastructure.database import mapper_registry

_instant = DateTime(timezone=True)

audit_erasures = Table(
    "audit_erasures",
    mapper_registry.metadata,
    Column("actor_id", Uuid, primary_key=True),
    Column("requested_at", _instant, nullable=False, server_default=func.clock_timestamp()),
    Column("reached_tenant_id", Uuid),
    Column("reached_at", _instant),
    Column("reached_event_id", Uuid),
    Column("erased_at", _instant),
    # What the person was called, to be found by; emptied once they are erased.
    Column("names", ARRAY(Text)),
    Column("emails", ARRAY(Text)),
)
audit_erased_events = Table(
    "audit_erased_events",
    mapper_registry.metadata,
    Column("event_id", Uuid, primary_key=True),
)
"""Events of others, or of nobody, that lost their personal fields because somebody erased is in
them: a check of the trail would else miss those fields."""
Index(
    "ix_audit_erasures_requested_at",
    audit_erasures.c.requested_at,
    postgresql_where=audit_erasures.c.erased_at.is_(None),
)
