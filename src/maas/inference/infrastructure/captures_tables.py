"""The tables of kept prompts and answers, and of people none are kept of any more."""

from sqlalchemy import Boolean, Column, DateTime, Index, LargeBinary, Table, Text, Uuid

from maas.shared.infrastructure.database import mapper_registry

_metadata = mapper_registry.metadata
_instant = DateTime(timezone=True)

inference_captures = Table(
    "inference_captures",
    _metadata,
    Column("id", Uuid, primary_key=True),
    Column("tenant_id", Uuid, nullable=False),
    Column("account_id", Uuid, nullable=False),
    Column("request_id", Text, nullable=False),
    Column("deployment_id", Uuid, nullable=False),
    Column("kind", Text, nullable=False),
    Column("is_stream", Boolean, nullable=False),
    Column("is_whole", Boolean, nullable=False),
    Column("captured_at", _instant, nullable=False),
    Column("keep_until", _instant, nullable=False),
    # The key alone: what hands over to another key of the ring reads no content.
    Column("sealed", LargeBinary, nullable=False),
    Column("content", LargeBinary, nullable=False),
    Index(None, "tenant_id", "request_id", "captured_at", "id"),
    Index(None, "account_id"),
    Index(None, "keep_until"),
)

inference_erasures = Table(
    "inference_erasures",
    _metadata,
    Column("account_id", Uuid, primary_key=True),
    Column("erased_at", _instant, nullable=False),
)
"""People whose captures were erased: what comes late, of a call under way then, is not kept."""
