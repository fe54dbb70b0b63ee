"""What models and versions are found by; triggers keep it, and nothing here writes it."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    ForeignKey,
    Index,
    Table,
    Text,
    Uuid,
    func,
)
from sqlalchemy.dialects.postgresql import ARRAY

from maas.model.infrastructure.tables import models
from maas.shared.infrastructure.database import mapper_registry

version_search = Table(
    "version_search",
    mapper_registry.metadata,
    Column(
        "version_id", Uuid, ForeignKey("model_versions.id", ondelete="CASCADE"), primary_key=True
    ),
    Column("tenant_id", Uuid, nullable=False),
    Column("model_id", Uuid, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("model_created_at", DateTime(timezone=True), nullable=False),
    Column("is_live", Boolean, nullable=False),
    Column("model_name", Text, nullable=False),
    Column("framework", Text, nullable=False),
    Column("task", Text),
    Column("licence", Text),
    Column("visibility", Text, nullable=False),
    Column("owner_id", Uuid, nullable=False),
    Column("tags", ARRAY(Text), nullable=False),
    Column("version", Text, nullable=False),
    Column("aliases", ARRAY(Text), nullable=False),
    Column("status", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("architecture", Text),
    Column("quantisation", Text),
    Column("dtype", Text),
    Column("parameters", BigInteger),
    Column("context_length", BigInteger),
    Index("ix_version_search_model_id", "model_id"),
)
_rows = version_search.c
for _last in (("created_at", "version_id"), ("size",), ("parameters",), ("context_length",)):
    Index(
        f"ix_version_search_tenant_id_{'_'.join(_last)}",
        _rows.tenant_id,
        *(_rows[name] for name in _last),
        postgresql_where=_rows.is_live,
    )
for _lead in ("status", "framework", "architecture", "quantisation"):
    Index(
        f"ix_version_search_tenant_id_{_lead}_created_at",
        _rows.tenant_id,
        _rows[_lead],
        _rows.created_at,
        _rows.version_id,
        postgresql_where=_rows.is_live,
    )
for _lead in ("status", "architecture", "quantisation"):
    Index(
        f"ix_version_search_tenant_id_{_lead}_model_created_at",
        _rows.tenant_id,
        _rows[_lead],
        _rows.model_created_at,
        _rows.model_id,
        postgresql_where=_rows.is_live & _rows[_lead].is_not(None),
    )
Index(
    "ix_version_search_words",
    func.registry_words(
        _rows.tenant_id,
        _rows.framework,
        _rows.task,
        _rows.licence,
        _rows.visibility,
        _rows.owner_id,
        _rows.tags,
        _rows.aliases,
        _rows.status,
        _rows.architecture,
        _rows.quantisation,
        _rows.dtype,
        _rows.size,
        _rows.parameters,
        _rows.context_length,
    ),
    func.search_grams(_rows.model_name, _rows.version),
    postgresql_using="gin",
    postgresql_with={"fastupdate": "off"},
    postgresql_where=_rows.is_live,
)

Index(
    "ix_models_words",
    func.search_grams(models.c.name, models.c.description),
    func.registry_words(
        models.c.tenant_id,
        models.c.framework,
        models.c.task,
        models.c.licence,
        models.c.visibility,
        models.c.owner_id,
    ),
    postgresql_using="gin",
    postgresql_with={"fastupdate": "off"},
    postgresql_where=models.c.deleted_at.is_(None),
)
Index(
    "ix_models_deleted",
    models.c.tenant_id,
    models.c.created_at,
    models.c.id,
    postgresql_where=models.c.deleted_at.is_not(None),
)
Index(
    "ix_models_public",
    models.c.created_at,
    models.c.id,
    postgresql_where=(models.c.visibility == "public") & models.c.deleted_at.is_(None),
)
