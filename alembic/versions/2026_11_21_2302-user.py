"""Accounts, tenants, roles, memberships and sessions."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003_user"
down_revision = "0002_idempotency"
branch_labels = None
depends_on = None

DEFAULT_TENANT = "01900000-0000-7000-8000-000000000001"
ROLES = {
    "admin": ["*:*"],
    "developer": [
        "deployment:*", "inference:*", "model:delete", "model:read", "model:write", "usage:read",
    ],
    "user": ["inference:*", "model:read"],
    "auditor": ["audit:*", "model:read", "usage:read", "user:read"],
    "platform_admin": ["platform:*"],
}  # fmt: skip
TENANT_TABLES = ("roles", "memberships", "membership_roles")
NOW = sa.text("clock_timestamp()")


def at(name: str, **options: object) -> sa.Column:
    return sa.Column(name, sa.DateTime(timezone=True), **options)


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '1s'")
    op.create_table(
        "tenants",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("slug", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False, server_default="active"),
        at("created_at", nullable=False, server_default=NOW),
        sa.Column("version", sa.Integer, nullable=False, server_default="1"),
        sa.PrimaryKeyConstraint("id", name="pk_tenants"),
        sa.UniqueConstraint("slug", name="uq_tenants_slug"),
    )
    op.create_table(
        "accounts",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("username", sa.Text, nullable=False),
        sa.Column("email", sa.Text, nullable=False),
        sa.Column("display_name", sa.Text),
        sa.Column("password_hash", sa.Text, nullable=False),
        sa.Column("password_change_required", sa.Boolean, nullable=False, server_default="false"),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("home_tenant_id", sa.Uuid, nullable=False),
        sa.Column("last_tenant_id", sa.Uuid),
        at("created_at", nullable=False),
        at("updated_at", nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_accounts"),
        sa.ForeignKeyConstraint(
            ["home_tenant_id"], ["tenants.id"], name="fk_accounts_home_tenant_id"
        ),
        sa.ForeignKeyConstraint(
            ["last_tenant_id"], ["tenants.id"], name="fk_accounts_last_tenant_id"
        ),
    )
    op.create_index(
        "uq_accounts_username_key", "accounts", [sa.text("lower(username)")], unique=True
    )
    op.create_index("uq_accounts_email_key", "accounts", [sa.text("lower(email)")], unique=True)
    op.create_table(
        "roles",
        sa.Column("tenant_id", sa.Uuid, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("permissions", postgresql.ARRAY(sa.Text), nullable=False),
        sa.Column("is_protected", sa.Boolean, nullable=False, server_default="false"),
        at("created_at", nullable=False, server_default=NOW),
        sa.Column("version", sa.Integer, nullable=False, server_default="1"),
        sa.PrimaryKeyConstraint("tenant_id", "name", name="pk_roles"),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_roles_tenant_id"),
    )
    op.create_table(
        "memberships",
        sa.Column("tenant_id", sa.Uuid, nullable=False),
        sa.Column("account_id", sa.Uuid, nullable=False),
        sa.Column("status", sa.Text, nullable=False, server_default="active"),
        at("created_at", nullable=False, server_default=NOW),
        sa.PrimaryKeyConstraint("tenant_id", "account_id", name="pk_memberships"),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_memberships_tenant_id"),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_memberships_account_id"),
    )
    op.create_index("ix_memberships_account_id", "memberships", ["account_id"])
    op.create_table(
        "membership_roles",
        sa.Column("tenant_id", sa.Uuid, nullable=False),
        sa.Column("account_id", sa.Uuid, nullable=False),
        sa.Column("role_name", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "account_id", "role_name", name="pk_membership_roles"),
        sa.ForeignKeyConstraint(
            ["tenant_id", "account_id"],
            ["memberships.tenant_id", "memberships.account_id"],
            name="fk_membership_roles_tenant_id_account_id",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "role_name"],
            ["roles.tenant_id", "roles.name"],
            name="fk_membership_roles_tenant_id_role_name",
        ),
    )
    op.create_index(
        "ix_membership_roles_tenant_id_role_name", "membership_roles", ["tenant_id", "role_name"]
    )
    op.create_table(
        "sessions",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("account_id", sa.Uuid, nullable=False),
        sa.Column("tenant_id", sa.Uuid, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("current_hash", sa.LargeBinary, nullable=False),
        sa.Column("previous_hash", sa.LargeBinary),
        at("rotated_at", nullable=False),
        at("created_at", nullable=False),
        at("last_used_at", nullable=False),
        at("expires_at", nullable=False),
        at("idle_expires_at", nullable=False),
        at("revoked_at"),
        sa.Column("revoked_reason", sa.Text),
        sa.Column("address", postgresql.INET),
        sa.Column("user_agent", sa.Text),
        sa.PrimaryKeyConstraint("id", name="pk_sessions"),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_sessions_account_id"),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_sessions_tenant_id"),
    )
    op.create_index("ix_sessions_account_id", "sessions", ["account_id"])
    op.create_table(
        "bootstrap_marks",
        sa.Column("name", sa.Text, nullable=False),
        at("made_at", nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_bootstrap_marks"),
    )
    _seed()
    _guard()
    _add_lookups()


def _seed() -> None:
    op.execute(
        f"INSERT INTO tenants (id, slug, name) VALUES ('{DEFAULT_TENANT}', 'default', 'Default')"
    )
    for name, permissions in ROLES.items():
        listed = ", ".join(f"'{permission}'" for permission in permissions)
        op.execute(
            "INSERT INTO roles (tenant_id, name, permissions, is_protected) "
            f"VALUES ('{DEFAULT_TENANT}', '{name}', ARRAY[{listed}], true)"
        )


def _guard() -> None:
    """Bind every tenant's rows to its transactions; look-ups by the owner's functions see all."""
    for table in TENANT_TABLES:
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        op.execute(
            f"CREATE POLICY own_tenant ON {table} TO maas_app "
            "USING (tenant_id = current_setting('maas.tenant_id')::uuid) "
            "WITH CHECK (tenant_id = current_setting('maas.tenant_id')::uuid)"
        )
        op.execute(f"CREATE POLICY owner_lookups ON {table} FOR SELECT TO maas_owner USING (true)")
    op.execute("GRANT SELECT, INSERT, UPDATE ON accounts, sessions TO maas_app")
    op.execute("GRANT SELECT ON tenants TO maas_app")
    op.execute(
        "GRANT SELECT, INSERT, UPDATE, DELETE ON memberships, membership_roles, roles TO maas_app"
    )
    op.execute("GRANT SELECT, INSERT ON bootstrap_marks TO maas_app")
    op.execute(
        "GRANT SELECT ON accounts, sessions, tenants, memberships, membership_roles, roles "
        "TO maas_system"
    )


def _add_lookups() -> None:
    """Answer the two questions that come before a tenant is known."""
    op.execute("""
        CREATE FUNCTION tenants_of(account uuid) RETURNS TABLE (id uuid, slug text)
        LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public AS $$
            SELECT t.id, t.slug FROM public.memberships m
            JOIN public.tenants t ON t.id = m.tenant_id
            WHERE m.account_id = account AND m.status = 'active' AND t.status = 'active'
            ORDER BY t.slug
        $$
    """)
    op.execute("""
        CREATE FUNCTION session_principal(session uuid)
        RETURNS TABLE (account_id uuid, tenant_id uuid, username text, version integer,
                       permissions text[])
        LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public AS $$
            SELECT s.account_id, s.tenant_id, a.username, s.version, ARRAY(
                SELECT DISTINCT unnest(r.permissions)
                FROM public.membership_roles mr
                JOIN public.roles r ON r.tenant_id = mr.tenant_id AND r.name = mr.role_name
                WHERE mr.tenant_id = s.tenant_id AND mr.account_id = s.account_id)
            FROM public.sessions s
            JOIN public.accounts a ON a.id = s.account_id AND a.status = 'active'
            JOIN public.tenants t ON t.id = s.tenant_id AND t.status = 'active'
            JOIN public.memberships m ON m.tenant_id = s.tenant_id
                AND m.account_id = s.account_id AND m.status = 'active'
            WHERE s.id = session AND s.revoked_at IS NULL
                AND s.expires_at > clock_timestamp() AND s.idle_expires_at > clock_timestamp()
        $$
    """)
    for function in ("tenants_of(uuid)", "session_principal(uuid)"):
        op.execute(f"REVOKE ALL ON FUNCTION {function} FROM PUBLIC")
        op.execute(f"GRANT EXECUTE ON FUNCTION {function} TO maas_app")


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '1s'")
    op.execute("DROP FUNCTION session_principal(uuid)")
    op.execute("DROP FUNCTION tenants_of(uuid)")
    for table in (
        "bootstrap_marks", "sessions", "membership_roles", "memberships", "roles", "accounts",
        "tenants",
    ):  # fmt: skip
        op.drop_table(table)
