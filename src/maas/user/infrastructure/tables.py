"""The tables of identity and access, and how aggregates lie in them.

Without a tenant: `accounts`, `tenants`, `sessions` (found before the tenant is known) and
`bootstrap_marks`. Everything else here is under row-level security.
"""

from sqlalchemy import (
    Boolean,
    Column,
    DateTime,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    Uuid,
    func,
)
from sqlalchemy.dialects.postgresql import ARRAY, INET
from sqlalchemy.orm import relationship

from maas.shared.infrastructure.columns import ValueText
from maas.shared.infrastructure.database import mapper_registry
from maas.user.domain.account import Account, DisplayName, EmailAddress, Username
from maas.user.domain.role import Role, RoleName
from maas.user.domain.session import Session
from maas.user.domain.tenant import Membership, RoleGrant, Slug, Tenant

metadata = mapper_registry.metadata

NOW = func.clock_timestamp()


tenants = Table(
    "tenants",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("slug", ValueText(Slug), nullable=False, unique=True),
    Column("name", Text, nullable=False),
    Column("status", Text, nullable=False, server_default="active"),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=NOW),
    Column("updated_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("status_reason", Text),
    Column("version", Integer, nullable=False, server_default="1"),
    Index("ix_tenants_created_at_id", "created_at", "id"),
)

accounts = Table(
    "accounts",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("username", ValueText(Username), nullable=False),
    Column("email", ValueText(EmailAddress), nullable=False),
    Column("display_name", ValueText(DisplayName)),
    Column("password_hash", Text, nullable=False),
    Column("password_change_required", Boolean, nullable=False, server_default="false"),
    Column("status", Text, nullable=False),
    Column("home_tenant_id", Uuid, ForeignKey("tenants.id"), nullable=False),
    Column("last_tenant_id", Uuid, ForeignKey("tenants.id")),
    Column("email_verified_at", DateTime(timezone=True)),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("updated_at", DateTime(timezone=True), nullable=False),
    Column("version", Integer, nullable=False),
)
Index("uq_accounts_username_key", func.lower(accounts.c.username), unique=True)
Index("uq_accounts_email_key", func.lower(accounts.c.email), unique=True)
Index(
    "ix_accounts_search",
    func.search_grams(accounts.c.username, accounts.c.email, accounts.c.display_name),
    postgresql_using="gin",
    postgresql_with={"fastupdate": "off"},
)

roles = Table(
    "roles",
    metadata,
    Column("tenant_id", Uuid, ForeignKey("tenants.id"), primary_key=True),
    Column("name", ValueText(RoleName), primary_key=True),
    Column("permissions", ARRAY(Text), nullable=False),
    Column("is_protected", Boolean, nullable=False, server_default="false"),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=NOW),
    Column("updated_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("description", Text),
    Column("version", Integer, nullable=False, server_default="1"),
)

memberships = Table(
    "memberships",
    metadata,
    Column("tenant_id", Uuid, ForeignKey("tenants.id"), primary_key=True),
    Column("account_id", Uuid, ForeignKey("accounts.id"), primary_key=True),
    Column("status", Text, nullable=False, server_default="active"),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=NOW),
    Column("updated_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("status_reason", Text),
    Column("version", Integer, nullable=False, server_default="1"),
    Index("ix_memberships_account_id", "account_id"),
)

Index(
    "ix_memberships_tenant_id_created_at_account_id",
    memberships.c.tenant_id,
    memberships.c.created_at,
    memberships.c.account_id,
)
Index(
    "ix_memberships_suspended",
    memberships.c.tenant_id,
    memberships.c.created_at,
    memberships.c.account_id,
    postgresql_where=memberships.c.status == "suspended",
)

membership_roles = Table(
    "membership_roles",
    metadata,
    Column("tenant_id", Uuid, primary_key=True),
    Column("account_id", Uuid, primary_key=True),
    Column("role_name", ValueText(RoleName), primary_key=True),
    ForeignKeyConstraint(
        ["tenant_id", "account_id"],
        ["memberships.tenant_id", "memberships.account_id"],
        ondelete="CASCADE",
    ),
    ForeignKeyConstraint(["tenant_id", "role_name"], ["roles.tenant_id", "roles.name"]),
    Index("ix_membership_roles_tenant_id_role_name", "tenant_id", "role_name"),
)

sessions = Table(
    "sessions",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("account_id", Uuid, ForeignKey("accounts.id"), nullable=False),
    Column("tenant_id", Uuid, ForeignKey("tenants.id"), nullable=False),
    Column("version", Integer, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("current_hash", LargeBinary, nullable=False),
    Column("previous_hash", LargeBinary),
    Column("rotated_at", DateTime(timezone=True), nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("last_used_at", DateTime(timezone=True), nullable=False),
    Column("expires_at", DateTime(timezone=True), nullable=False),
    Column("idle_expires_at", DateTime(timezone=True), nullable=False),
    Column("revoked_at", DateTime(timezone=True)),
    Column("revoked_reason", Text),
    Column("address", INET),
    Column("user_agent", Text),
    Index("ix_sessions_account_id", "account_id"),
)

Index(
    "ix_sessions_tenant_id", sessions.c.tenant_id, postgresql_where=sessions.c.revoked_at.is_(None)
)

bootstrap_marks = Table(
    "bootstrap_marks",
    metadata,
    Column("name", Text, primary_key=True),
    Column("made_at", DateTime(timezone=True), nullable=False),
)

mapper_registry.map_imperatively(
    Account, accounts, version_id_col=accounts.c.version, eager_defaults=False
)
mapper_registry.map_imperatively(Session, sessions)
mapper_registry.map_imperatively(Tenant, tenants, eager_defaults=False)
mapper_registry.map_imperatively(Role, roles, eager_defaults=False)
mapper_registry.map_imperatively(RoleGrant, membership_roles)
mapper_registry.map_imperatively(
    Membership,
    memberships,
    eager_defaults=False,
    properties={
        "grants": relationship(
            RoleGrant, cascade="all, delete-orphan", passive_deletes=True, lazy="raise"
        )
    },
)
