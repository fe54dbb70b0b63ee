"""Suppliers, their sealed credentials, and the tenants they are granted to.

Keys lie apart from their providers: a tenant that a provider is granted to reads its row, and no
row of its key.
"""

import sqlalchemy as sa
from alembic import op

revision = "0027_providers"
down_revision = "0026_upload_rights"
branch_labels = None
depends_on = None

TABLES = ("providers", "provider_credentials", "provider_grants")
MINE = "current_setting('maas.tenant_id')::uuid"


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '1s'")
    _add_providers()
    _add_credentials()
    _add_grants()
    _guard()
    _share()
    _set_developers("array_append(array_remove(permissions, 'provider:read'), 'provider:read')")


def _add_providers() -> None:
    op.create_table(
        "providers",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("tenant_id", sa.Uuid, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("base_url", sa.Text, nullable=False),
        sa.Column("reach", sa.Text, nullable=False),
        sa.Column("api_version", sa.Text),
        sa.Column("description", sa.Text),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("created_by", sa.Uuid, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True)),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.CheckConstraint("reach IN ('public', 'private')", name="ck_providers_reach"),
        sa.CheckConstraint("status IN ('active', 'disabled')", name="ck_providers_status"),
        sa.PrimaryKeyConstraint("id", name="pk_providers"),
        # What refers to a row names its tenant as well: foreign keys see past row security.
        sa.UniqueConstraint("id", "tenant_id", name="uq_providers_id_tenant_id"),
    )
    op.create_index(
        "uq_providers_tenant_id_name",
        "providers",
        ["tenant_id", "name"],
        unique=True,
        postgresql_where=sa.text("deleted_at IS NULL"),
    )
    op.create_index(
        "ix_providers_tenant_id_created_at_id",
        "providers",
        ["tenant_id", "created_at", "id"],
        postgresql_where=sa.text("deleted_at IS NULL"),
    )


def _add_credentials() -> None:
    op.create_table(
        "provider_credentials",
        sa.Column("provider_id", sa.Uuid, nullable=False),
        sa.Column("tenant_id", sa.Uuid, nullable=False),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
        sa.Column("set_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("set_by", sa.Uuid, nullable=False),
        sa.PrimaryKeyConstraint("provider_id", name="pk_provider_credentials"),
        _of_provider("provider_credentials"),
    )


def _add_grants() -> None:
    op.create_table(
        "provider_grants",
        sa.Column("provider_id", sa.Uuid, nullable=False),
        sa.Column("grantee_id", sa.Uuid, nullable=False),
        sa.Column("tenant_id", sa.Uuid, nullable=False),
        sa.Column("created_by", sa.Uuid, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("provider_id", "grantee_id", name="pk_provider_grants"),
        _of_provider("provider_grants"),
    )
    op.create_index("ix_provider_grants_grantee_id", "provider_grants", ["grantee_id"])


def _of_provider(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["provider_id", "tenant_id"],
        ["providers.id", "providers.tenant_id"],
        name=f"fk_{table}_provider_id_tenant_id",
        ondelete="CASCADE",
    )


def _guard() -> None:
    for table in TABLES:
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        op.execute(
            f"CREATE POLICY own_tenant ON {table} TO maas_app "
            f"USING (tenant_id = {MINE}) WITH CHECK (tenant_id = {MINE})"
        )
        # The revocations undo what default privileges may have given.
        op.execute(f"REVOKE ALL ON {table} FROM PUBLIC, maas_app, maas_system")
        op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO maas_system")
    op.execute("GRANT SELECT, INSERT, UPDATE ON providers TO maas_app")
    op.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON provider_credentials TO maas_app")
    op.execute("GRANT SELECT, INSERT, DELETE ON provider_grants TO maas_app")


def _share() -> None:
    """Let a tenant see the grants it has, and the providers of these, as in 0019.

    A tenant that is suspended or closed shares nothing.
    """
    op.execute("""
        CREATE FUNCTION tenant_has_status(uuid, VARIADIC statuses text[]) RETURNS boolean
        LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
        BEGIN
            RETURN EXISTS (SELECT FROM public.tenants WHERE id = $1 AND status = ANY (statuses));
        END $$
    """)
    op.execute("REVOKE ALL ON FUNCTION tenant_has_status(uuid, text[]) FROM PUBLIC")
    op.execute("GRANT EXECUTE ON FUNCTION tenant_has_status(uuid, text[]) TO maas_app, maas_system")
    op.execute(
        "CREATE POLICY of_others ON provider_grants FOR SELECT TO maas_app "
        f"USING (grantee_id = {MINE})"
    )
    op.execute(f"""
        CREATE FUNCTION provider_is_granted(uuid, tenant uuid) RETURNS boolean
        LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
        BEGIN
            RETURN EXISTS (SELECT FROM public.provider_grants
                WHERE provider_id = $1 AND grantee_id = {MINE} AND tenant_id = tenant
                  AND NOT public.tenant_has_status(tenant, 'suspended', 'deleted'));
        END $$
    """)
    op.execute("REVOKE ALL ON FUNCTION provider_is_granted(uuid, uuid) FROM PUBLIC")
    op.execute("GRANT EXECUTE ON FUNCTION provider_is_granted(uuid, uuid) TO maas_app")
    op.execute(
        "CREATE POLICY of_others ON providers FOR SELECT TO maas_app "
        "USING (deleted_at IS NULL AND provider_is_granted(id, tenant_id))"
    )


def _set_developers(permissions: str) -> None:
    """Set what the built-in role of each tenant has by `permissions`, an expression in SQL."""
    # The owner is bound by row-level security as well, and none of its policies lets it change.
    op.execute("ALTER TABLE roles NO FORCE ROW LEVEL SECURITY")
    op.execute(
        f"UPDATE roles SET permissions = {permissions}, version = version + 1 "
        "WHERE name = 'developer' AND is_protected"
    )
    op.execute("ALTER TABLE roles FORCE ROW LEVEL SECURITY")


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '1s'")
    _set_developers("array_remove(permissions, 'provider:read')")
    op.execute("DROP POLICY of_others ON providers")
    for table in reversed(TABLES):
        op.drop_table(table)
    op.execute("DROP FUNCTION provider_is_granted(uuid, uuid)")
    op.execute("DROP FUNCTION tenant_has_status(uuid, text[])")
