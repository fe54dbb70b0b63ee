"""The tables of the registry, and how aggregates lie in them.

Without a tenant: `blobs` and `blob_parts`, for equal bytes are kept once for everybody; only rows
of `version_files` lead to them. Everything else here is under row-level security.
"""

from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    TypeDecorator,
    Uuid,
    func,
)
from sqlalchemy.orm import attribute_keyed_dict, relationship
from sqlalchemy.types import TypeEngine
from typing_extensions import override

from maas.model.domain.blob import Digest
from maas.model.domain.file import FilePath, VersionFile
from maas.model.domain.model import Model
from maas.model.domain.text import Description, Label, ModelName, Reason, VersionName
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
Index(
    "ix_models_search",
    func.search_grams(models.c.name, models.c.description),
    postgresql_using="gin",
    postgresql_with={"fastupdate": "off"},
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
