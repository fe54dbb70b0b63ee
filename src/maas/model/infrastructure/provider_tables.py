"""The tables of suppliers, of their sealed keys, and of whom they are granted to.

A key lies in a table of its own, which no tenant reads that a provider is granted to. What refers
to a provider names its tenant as well: foreign keys see past row-level security.
"""

from sqlalchemy import (
    CheckConstraint,
    Column,
    DateTime,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
)

from maas.model.domain.provider import ApiVersion, Provider, ProviderName
from maas.model.domain.text import Description
from maas.shared.infrastructure.columns import ValueText
from maas.shared.infrastructure.database import mapper_registry

metadata = mapper_registry.metadata

providers = Table(
    "providers",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("tenant_id", Uuid, nullable=False),
    Column("name", ValueText(ProviderName), nullable=False),
    # Which types there are, the code says: each release may know more.
    Column("type", Text, nullable=False),
    Column("base_url", Text, nullable=False),
    Column("reach", Text, nullable=False),
    Column("api_version", ValueText(ApiVersion)),
    Column("description", ValueText(Description)),
    Column("status", Text, nullable=False),
    Column("created_by", Uuid, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("updated_at", DateTime(timezone=True), nullable=False),
    Column("deleted_at", DateTime(timezone=True)),
    Column("revision", Integer, nullable=False),
    CheckConstraint("reach IN ('public', 'private')", name="reach"),
    CheckConstraint("status IN ('active', 'disabled')", name="status"),
    UniqueConstraint("id", "tenant_id", name="uq_providers_id_tenant_id"),
)
Index(
    "uq_providers_tenant_id_name",
    providers.c.tenant_id,
    providers.c.name,
    unique=True,
    postgresql_where=providers.c.deleted_at.is_(None),
)
Index(
    "ix_providers_tenant_id_created_at_id",
    providers.c.tenant_id,
    providers.c.created_at,
    providers.c.id,
    postgresql_where=providers.c.deleted_at.is_(None),
)

provider_credentials = Table(
    "provider_credentials",
    metadata,
    Column("provider_id", Uuid, primary_key=True),
    Column("tenant_id", Uuid, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("set_at", DateTime(timezone=True), nullable=False),
    Column("set_by", Uuid, nullable=False),
    ForeignKeyConstraint(
        ["provider_id", "tenant_id"], ["providers.id", "providers.tenant_id"], ondelete="CASCADE"
    ),
)

provider_grants = Table(
    "provider_grants",
    metadata,
    Column("provider_id", Uuid, primary_key=True),
    Column("grantee_id", Uuid, primary_key=True),
    Column("tenant_id", Uuid, nullable=False),
    Column("created_by", Uuid, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    ForeignKeyConstraint(
        ["provider_id", "tenant_id"], ["providers.id", "providers.tenant_id"], ondelete="CASCADE"
    ),
    Index("ix_provider_grants_grantee_id", "grantee_id"),
)

mapper_registry.map_imperatively(Provider, providers, eager_defaults=False)
