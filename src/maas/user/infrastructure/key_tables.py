"""The tables of API keys and service accounts; all of them are under row-level security."""

from sqlalchemy import (
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import relationship

from maas.shared.infrastructure.columns import ValueText
from maas.shared.infrastructure.database import mapper_registry
from maas.user.domain.api_key import ApiKey
from maas.user.domain.role import RoleName
from maas.user.domain.service_account import ServiceAccount, ServiceRoleGrant

metadata = mapper_registry.metadata

service_accounts = Table(
    "service_accounts",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("tenant_id", Uuid, ForeignKey("tenants.id"), primary_key=True),
    Column("name", Text, nullable=False),
    Column("description", Text),
    Column("status", Text, nullable=False),
    Column("created_by", Uuid, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("updated_at", DateTime(timezone=True), nullable=False),
    Column("version", Integer, nullable=False),
    UniqueConstraint("tenant_id", "name"),
)

service_account_roles = Table(
    "service_account_roles",
    metadata,
    Column("tenant_id", Uuid, primary_key=True),
    Column("service_account_id", Uuid, primary_key=True),
    Column("role_name", ValueText(RoleName), primary_key=True),
    ForeignKeyConstraint(
        ["tenant_id", "service_account_id"],
        ["service_accounts.tenant_id", "service_accounts.id"],
        ondelete="CASCADE",
    ),
    ForeignKeyConstraint(["tenant_id", "role_name"], ["roles.tenant_id", "roles.name"]),
    Index("ix_service_account_roles_tenant_id_role_name", "tenant_id", "role_name"),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("tenant_id", Uuid, ForeignKey("tenants.id"), nullable=False),
    Column("account_id", Uuid),
    Column("service_account_id", Uuid),
    Column("public_id", Text, nullable=False, unique=True),
    Column("prefix", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("scopes", ARRAY(Text), nullable=False),
    Column("allowed_networks", ARRAY(Text)),
    Column("allowed_models", ARRAY(Text)),
    Column("requests_per_minute", Integer),
    Column("secret_hash", LargeBinary, nullable=False),
    Column("is_secret_used", Boolean, nullable=False),
    Column("previous_hash", LargeBinary),
    Column("previous_valid_until", DateTime(timezone=True)),
    Column("rotated_at", DateTime(timezone=True)),
    Column("expires_at", DateTime(timezone=True), nullable=False),
    Column("last_used_at", DateTime(timezone=True)),
    Column("created_by", Uuid, nullable=False),
    Column("created_by_key", Uuid),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("updated_at", DateTime(timezone=True), nullable=False),
    Column("auth_version", Integer, nullable=False),
    Column("version", Integer, nullable=False),
    ForeignKeyConstraint(
        ["tenant_id", "account_id"],
        ["memberships.tenant_id", "memberships.account_id"],
        ondelete="CASCADE",
        name="fk_api_keys_tenant_id_account_id",
    ),
    ForeignKeyConstraint(
        ["tenant_id", "service_account_id"],
        ["service_accounts.tenant_id", "service_accounts.id"],
        ondelete="CASCADE",
        name="fk_api_keys_tenant_id_service_account_id",
    ),
    CheckConstraint("num_nonnulls(account_id, service_account_id) = 1", name="one_holder"),
    Index("ix_api_keys_account_id", "account_id", "tenant_id"),
    Index("ix_api_keys_service_account_id", "service_account_id", "tenant_id"),
)

mapper_registry.map_imperatively(ApiKey, api_keys, eager_defaults=False)
mapper_registry.map_imperatively(ServiceRoleGrant, service_account_roles)
mapper_registry.map_imperatively(
    ServiceAccount,
    service_accounts,
    eager_defaults=False,
    properties={
        "grants": relationship(
            ServiceRoleGrant, cascade="all, delete-orphan", passive_deletes=True, lazy="raise"
        )
    },
)
