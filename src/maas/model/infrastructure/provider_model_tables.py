"""The tables of suppliers' models, and of their prices, to which rows are only added."""

from sqlalchemy import (
    ARRAY,
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    Numeric,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)

from maas.model.domain.provider_model import ProviderModel, ProviderModelName
from maas.shared.infrastructure.columns import ValueText
from maas.shared.infrastructure.database import mapper_registry

metadata = mapper_registry.metadata

# 9 digits before the point and 12 after it, as `UnitPrice` has them.
_PRICE = Numeric(21, 12)
_METERS = ("input", "output", "cached", "reasoning", "request")

provider_models = Table(
    "provider_models",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("provider_id", Uuid, nullable=False),
    Column("tenant_id", Uuid, nullable=False),
    Column("name", ValueText(ProviderModelName), nullable=False),
    Column("capabilities", ARRAY(Text), nullable=False),
    Column("context_length", Integer),
    Column("max_output_tokens", Integer),
    Column("status", Text, nullable=False),
    Column("created_by", Uuid, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("updated_at", DateTime(timezone=True), nullable=False),
    Column("deleted_at", DateTime(timezone=True)),
    Column("revision", Integer, nullable=False),
    CheckConstraint("status IN ('active', 'disabled')", name="status"),
    UniqueConstraint("id", "provider_id", "tenant_id", name="uq_provider_models_id_provider_id"),
    ForeignKeyConstraint(["provider_id", "tenant_id"], ["providers.id", "providers.tenant_id"]),
)
Index(
    "uq_provider_models_provider_id_name",
    provider_models.c.provider_id,
    provider_models.c.name,
    unique=True,
    postgresql_where=provider_models.c.deleted_at.is_(None),
)
Index(
    "ix_provider_models_provider_id_created_at_id",
    provider_models.c.provider_id,
    provider_models.c.created_at,
    provider_models.c.id,
    postgresql_where=provider_models.c.deleted_at.is_(None),
)

provider_prices = Table(
    "provider_prices",
    metadata,
    Column("id", Uuid, primary_key=True),
    # The order they were set in, which no process's clock decides.
    Column("position", BigInteger, Identity(always=True), nullable=False),
    Column("model_id", Uuid, nullable=False),
    Column("provider_id", Uuid, nullable=False),
    Column("tenant_id", Uuid, nullable=False),
    Column("currency", Text, nullable=False),
    Column("input", _PRICE, nullable=False),
    Column("output", _PRICE, nullable=False),
    Column("cached", _PRICE),
    Column("reasoning", _PRICE),
    Column("request", _PRICE),
    Column("valid_from", DateTime(timezone=True), nullable=False),
    Column("created_by", Uuid, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    ForeignKeyConstraint(
        ["model_id", "provider_id", "tenant_id"],
        ["provider_models.id", "provider_models.provider_id", "provider_models.tenant_id"],
    ),
    *(CheckConstraint(f"{meter} >= 0 AND {meter} <> 'NaN'", name=meter) for meter in _METERS),
    CheckConstraint("currency ~ '^[A-Z]{3}$'", name="currency"),
    Index(
        "ix_provider_prices_model_id_valid_from_position",
        "model_id",
        text("valid_from DESC"),
        text("position DESC"),
    ),
    Index(
        "ix_provider_prices_model_id_currency_valid_from_position",
        "model_id",
        "currency",
        text("valid_from DESC"),
        text("position DESC"),
    ),
)

mapper_registry.map_imperatively(ProviderModel, provider_models, eager_defaults=False)
