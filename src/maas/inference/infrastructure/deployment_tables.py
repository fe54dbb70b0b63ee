"""The tables of deployments, of their targets, and of whom they are granted to.

Targets lie in a table of their own, which no tenant reads that may only call the deployment.
"""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKeyConstraint,
    Index,
    Integer,
    Numeric,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    and_,
)

from maas.inference.domain.deployment import Deployment, DeploymentName, DeploymentText
from maas.shared.infrastructure.columns import ValueText
from maas.shared.infrastructure.database import mapper_registry

metadata = mapper_registry.metadata

# As the prices of suppliers' models are kept.
_PRICE = Numeric(21, 12)
METERS = ("input", "output", "cached", "reasoning", "request")
LEADS = """
    CASE kind
    WHEN 'provider' THEN provider_model_id IS NOT NULL
        AND num_nonnulls(model_id, version, alias, currency) = 0
    WHEN 'local' THEN model_id IS NOT NULL AND provider_model_id IS NULL
        AND num_nonnulls(version, alias) = 1
    ELSE false END
"""
PRICED = """
    CASE WHEN currency IS NULL THEN num_nonnulls(input, output, cached, reasoning, request) = 0
    ELSE num_nonnulls(input, output) = 2 END
"""

deployments = Table(
    "deployments",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("tenant_id", Uuid, nullable=False),
    Column("name", ValueText(DeploymentName), nullable=False),
    Column("description", ValueText(DeploymentText)),
    Column("status", Text, nullable=False),
    Column("visibility", Text, nullable=False),
    Column("currency", Text),
    Column("max_body_bytes", BigInteger),
    Column("max_output_tokens", Integer),
    Column("max_choices", Integer),
    Column("cache_seconds", Integer),
    Column("capture_days", Integer),
    Column("created_by", Uuid, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("updated_at", DateTime(timezone=True), nullable=False),
    Column("deleted_at", DateTime(timezone=True)),
    Column("revision", Integer, nullable=False),
    CheckConstraint("status IN ('active', 'disabled')", name="status"),
    CheckConstraint("visibility IN ('tenant', 'public')", name="visibility"),
    CheckConstraint("currency ~ '^[A-Z]{3}$'", name="currency"),
    UniqueConstraint("id", "tenant_id", name="uq_deployments_id_tenant_id"),
)
Index(
    "uq_deployments_tenant_id_name",
    deployments.c.tenant_id,
    deployments.c.name,
    unique=True,
    postgresql_where=deployments.c.deleted_at.is_(None),
)
Index(
    "ix_deployments_tenant_id_created_at_id",
    deployments.c.tenant_id,
    deployments.c.created_at,
    deployments.c.id,
    postgresql_where=deployments.c.deleted_at.is_(None),
)
Index(
    "ix_deployments_name_created_at_id",
    deployments.c.name,
    deployments.c.created_at,
    deployments.c.id,
    postgresql_where=and_(deployments.c.deleted_at.is_(None), deployments.c.visibility == "public"),
)

deployment_targets = Table(
    "deployment_targets",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("deployment_id", Uuid, nullable=False),
    Column("tenant_id", Uuid, nullable=False),
    Column("position", Integer, nullable=False),
    Column("kind", Text, nullable=False),
    Column("provider_model_id", Uuid),
    Column("model_id", Uuid),
    Column("version", Text),
    Column("alias", Text),
    Column("priority", Integer, nullable=False),
    Column("weight", Integer, nullable=False),
    Column("status", Text, nullable=False),
    Column("max_concurrent", Integer),
    Column("max_queued", Integer, nullable=False),
    Column("queue_seconds", Integer, nullable=False),
    Column("connect_seconds", Integer, nullable=False),
    Column("first_byte_seconds", Integer, nullable=False),
    Column("idle_seconds", Integer, nullable=False),
    Column("total_seconds", Integer, nullable=False),
    Column("currency", Text),
    *(Column(meter, _PRICE) for meter in METERS),
    CheckConstraint(LEADS, name="leads"),
    CheckConstraint(PRICED, name="priced"),
    CheckConstraint("status IN ('active', 'disabled')", name="status"),
    CheckConstraint("currency ~ '^[A-Z]{3}$'", name="currency"),
    *(CheckConstraint(f"{meter} >= 0 AND {meter} <> 'NaN'", name=meter) for meter in METERS),
    ForeignKeyConstraint(
        ["deployment_id", "tenant_id"],
        ["deployments.id", "deployments.tenant_id"],
        ondelete="CASCADE",
    ),
    Index("ix_deployment_targets_deployment_id", "deployment_id", "position"),
)

deployment_grants = Table(
    "deployment_grants",
    metadata,
    Column("deployment_id", Uuid, primary_key=True),
    Column("grantee_id", Uuid, primary_key=True),
    Column("tenant_id", Uuid, nullable=False),
    Column("created_by", Uuid, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    ForeignKeyConstraint(
        ["deployment_id", "tenant_id"],
        ["deployments.id", "deployments.tenant_id"],
        ondelete="CASCADE",
    ),
    Index("ix_deployment_grants_grantee_id", "grantee_id"),
)

mapper_registry.map_imperatively(Deployment, deployments, eager_defaults=False)
