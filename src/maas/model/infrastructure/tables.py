"""The tables of the registry, and how aggregates lie in them.

Without a tenant: `blobs` and `blob_parts`, for equal bytes are kept once for everybody; only rows
of `version_files` lead to them. Everything else here is under row-level security.

The server's defaults are for processes of the version before, which do not know these columns.
"""

from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    Dialect,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    TypeDecorator,
    Uuid,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import attribute_keyed_dict, relationship
from sqlalchemy.types import TypeEngine
from typing_extensions import override

from maas.model.domain.blob import Digest
from maas.model.domain.file import FilePath, VersionFile
from maas.model.domain.model import Model
from maas.model.domain.text import (
    Description,
    Label,
    ModelCard,
    ModelName,
    Reason,
    SourceUrl,
    Tag,
    VersionName,
)
from maas.model.domain.version import ModelVersion
from maas.shared.infrastructure.columns import ValueText
from maas.shared.infrastructure.database import mapper_registry

metadata = mapper_registry.metadata


class DigestBytes(TypeDecorator[Digest]):
    """Keeps a SHA-256 as its 32 bytes."""

    impl: TypeEngine[Any] | type[TypeEngine[Any]] = LargeBinary
    cache_ok: bool | None = True

    @override
    def process_bind_param(self, value: Digest | None, dialect: Dialect) -> bytes | None:
        return None if value is None else value.value

    @override
    def process_result_value(self, value: bytes | None, dialect: Dialect) -> Digest | None:
        return None if value is None else Digest(value)


SOURCE = """
    CASE source_kind
    WHEN 'uploaded' THEN num_nonnulls(source_model_id, source_version, source_url) = 0
    WHEN 'fine-tuned-from'
        THEN num_nonnulls(source_model_id, source_version) = 2 AND source_url IS NULL
    WHEN 'imported-from'
        THEN source_url IS NOT NULL AND num_nonnulls(source_model_id, source_version) = 0
    ELSE false END
"""
VALUE = "jsonb_typeof(value) IN ('string', 'number', 'boolean')"

models = Table(
    "models",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("tenant_id", Uuid, nullable=False),
    Column("name", ValueText(ModelName), nullable=False),
    Column("description", ValueText(Description)),
    Column("framework", Text, nullable=False),
    Column("task", ValueText(Label)),
    Column("licence", ValueText(Label)),
    Column("created_by", Uuid, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("updated_at", DateTime(timezone=True), nullable=False),
    Column("deleted_at", DateTime(timezone=True)),
    Column("revision", Integer, nullable=False),
    Column("card", ValueText(ModelCard)),
    Column("visibility", Text, nullable=False, server_default="tenant"),
    Column("owner_id", Uuid, nullable=False),
    CheckConstraint("visibility IN ('private', 'tenant', 'public')", name="visibility"),
)
Index(
    "uq_models_tenant_id_name",
    models.c.tenant_id,
    models.c.name,
    unique=True,
    postgresql_where=models.c.deleted_at.is_(None),
)
Index(
    "ix_models_tenant_id_created_at_id",
    models.c.tenant_id,
    models.c.created_at,
    models.c.id,
    postgresql_where=models.c.deleted_at.is_(None),
)

model_versions = Table(
    "model_versions",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("tenant_id", Uuid, nullable=False),
    Column("model_id", Uuid, ForeignKey("models.id"), nullable=False),
    Column("name", ValueText(VersionName), nullable=False),
    Column("status", Text, nullable=False),
    Column("status_reason", ValueText(Reason)),
    Column("description", ValueText(Description)),
    Column("created_by", Uuid, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("updated_at", DateTime(timezone=True), nullable=False),
    Column("revision", Integer, nullable=False),
    Column("file_count", Integer, nullable=False, server_default="0"),
    Column("size", BigInteger, nullable=False, server_default="0"),
    Column("checksum", DigestBytes),
    Column("source_kind", Text, nullable=False, server_default="uploaded"),
    Column("source_model_id", Uuid),
    Column("source_version", ValueText(VersionName)),
    Column("source_url", ValueText(SourceUrl)),
    CheckConstraint(SOURCE, name="source"),
    CheckConstraint("octet_length(checksum) = 32", name="checksum"),
)
Index(
    "uq_model_versions_model_id_name", model_versions.c.model_id, model_versions.c.name, unique=True
)
Index(
    "ix_model_versions_model_id_created_at_id",
    model_versions.c.model_id,
    model_versions.c.created_at,
    model_versions.c.id,
)


def _of_model() -> Column[Any]:
    return Column("model_id", Uuid, ForeignKey("models.id", ondelete="CASCADE"), primary_key=True)


def _of_version() -> Column[Any]:
    return Column(
        "version_id", Uuid, ForeignKey("model_versions.id", ondelete="CASCADE"), primary_key=True
    )


model_tags = Table(
    "model_tags",
    metadata,
    _of_model(),
    Column("tag", ValueText(Tag), primary_key=True),
    Column("tenant_id", Uuid, nullable=False),
    Index("ix_model_tags_tenant_id_tag", "tenant_id", "tag"),
)

model_metadata = Table(
    "model_metadata",
    metadata,
    _of_model(),
    Column("key", Text, primary_key=True),
    Column("tenant_id", Uuid, nullable=False),
    Column("value", JSONB, nullable=False),
    CheckConstraint(VALUE, name="value"),
)

model_grants = Table(
    "model_grants",
    metadata,
    _of_model(),
    Column("grantee_id", Uuid, primary_key=True),
    Column("tenant_id", Uuid, nullable=False),
    Column("created_by", Uuid, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Index("ix_model_grants_grantee_id", "grantee_id"),
)

version_metadata = Table(
    "version_metadata",
    metadata,
    _of_version(),
    Column("key", Text, primary_key=True),
    Column("tenant_id", Uuid, nullable=False),
    Column("value", JSONB, nullable=False),
    CheckConstraint(VALUE, name="value"),
)

version_metrics = Table(
    "version_metrics",
    metadata,
    _of_version(),
    Column("name", Text, primary_key=True),
    Column("tenant_id", Uuid, nullable=False),
    Column("value", Double, nullable=False),
)

version_transitions = Table(
    "version_transitions",
    metadata,
    _of_version(),
    Column("revision", Integer, primary_key=True),
    Column("tenant_id", Uuid, nullable=False),
    Column("from_status", Text, nullable=False),
    Column("to_status", Text, nullable=False),
    Column("reason", ValueText(Reason)),
    Column("by", Uuid, nullable=False),
    Column("at", DateTime(timezone=True), nullable=False),
)

blobs = Table(
    "blobs",
    metadata,
    Column("sha256", DigestBytes, primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    CheckConstraint("octet_length(sha256) = 32", name="sha256"),
)

blob_parts = Table(
    "blob_parts",
    metadata,
    Column("sha256", DigestBytes, ForeignKey("blobs.sha256", ondelete="CASCADE"), primary_key=True),
    Column("index", Integer, primary_key=True),
    Column("key", Text, nullable=False, unique=True),
    Column("size", BigInteger, nullable=False),
    Column("part_sha256", DigestBytes, nullable=False),
)

version_files = Table(
    "version_files",
    metadata,
    Column(
        "version_id", Uuid, ForeignKey("model_versions.id", ondelete="CASCADE"), primary_key=True
    ),
    Column("path", ValueText(FilePath), primary_key=True),
    Column("tenant_id", Uuid, nullable=False),
    Column("sha256", DigestBytes, ForeignKey("blobs.sha256"), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("media_type", Text, nullable=False),
    Column("created_by", Uuid, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Index("ix_version_files_sha256", "sha256"),
)

mapper_registry.map_imperatively(Model, models, eager_defaults=False)
mapper_registry.map_imperatively(VersionFile, version_files, eager_defaults=False)
mapper_registry.map_imperatively(
    ModelVersion,
    model_versions,
    eager_defaults=False,
    properties={
        "files": relationship(
            VersionFile,
            collection_class=attribute_keyed_dict("path"),
            cascade="all, delete-orphan",
            passive_deletes=True,
            lazy="raise",
        )
    },
)
