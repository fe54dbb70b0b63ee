"""The table of Idempotency-Keys that calls were made under; its functions: migration 0033."""

from sqlalchemy import Column, DateTime, Index, LargeBinary, Table, Text, Uuid, text

from maas.shared.infrastructure.database import mapper_registry

inference_replays = Table(
    "inference_replays",
    mapper_registry.metadata,
    Column("tenant_id", Uuid, primary_key=True),
    Column("credential_id", Uuid, primary_key=True),
    Column("key_digest", LargeBinary, primary_key=True),
    Column("body_digest", LargeBinary, nullable=False),
    Column("request_id", Text, nullable=False),
    Column(
        "made_at",
        DateTime(timezone=True),
        nullable=False,
        server_default=text("clock_timestamp()"),
    ),
    Index(None, "made_at"),
)
