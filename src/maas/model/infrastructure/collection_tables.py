"""What the collection knows: bytes that files let go, parts that are to go, how far it looked.

Only `purged_models` is of a tenant; the other tables are the system role's alone.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Table,
    Text,
    Uuid,
    text,
    true,
)

from maas.model.infrastructure.tables import DigestBytes, models
from maas.shared.infrastructure.database import mapper_registry

_NOW = text("clock_timestamp()")

freed_blobs = Table(
    "freed_blobs",
    mapper_registry.metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("sha256", DigestBytes, nullable=False),
    Column("freed_at", DateTime(timezone=True), nullable=False, server_default=_NOW),
    Index("ix_freed_blobs_freed_at_id", "freed_at", "id"),
    Index("ix_freed_blobs_sha256_freed_at", "sha256", "freed_at"),
)

doomed_parts = Table(
    "doomed_parts",
    mapper_registry.metadata,
    Column("key", Text, primary_key=True),
    Column("doomed_at", DateTime(timezone=True), nullable=False, server_default=_NOW),
)

collection_progress = Table(
    "collection_progress",
    mapper_registry.metadata,
    Column("name", Text, primary_key=True),
    Column("after", Text, nullable=False),
    Column("began_at", DateTime(timezone=True), nullable=False),
)

purged_models = Table(
    "purged_models",
    mapper_registry.metadata,
    Column("model_id", Uuid, ForeignKey("models.id"), primary_key=True),
    Column("tenant_id", Uuid, nullable=False),
    Column("purged_at", DateTime(timezone=True), nullable=False, server_default=_NOW),
    Column("has_files", Boolean, nullable=False, server_default=true()),
    Index("ix_purged_models_has_files", "model_id", postgresql_where=text("has_files")),
)

Index(
    "ix_models_deleted_at",
    models.c.deleted_at,
    postgresql_where=models.c.deleted_at.is_not(None),
)
