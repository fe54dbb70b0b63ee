"""Why and when access was changed, and what that asks of an account's other tenants."""

import sqlalchemy as sa
from alembic import op

revision = "0007_admin"
down_revision = "0006_sign_in_aids"
branch_labels = None
depends_on = None

CHANGED_TABLES = ("tenants", "roles", "memberships")
INDEXES = {
    "ix_memberships_tenant_id_created_at_account_id": (
        "memberships (tenant_id, created_at, account_id)"
    ),
    "ix_memberships_suspended": (
        "memberships (tenant_id, created_at, account_id) WHERE status = 'suspended'"
    ),
    "ix_tenants_created_at_id": "tenants (created_at, id)",
    "ix_sessions_tenant_id": "sessions (tenant_id) WHERE revoked_at IS NULL",
}


def upgrade() -> None:
    _add_indexes()
    op.execute("SET LOCAL lock_timeout = '1s'")
    for table in CHANGED_TABLES:
        # Not clock_timestamp(): a volatile default would rewrite the table.
        op.add_column(
            table,
            sa.Column(
                "updated_at",
                sa.DateTime(timezone=True),
                nullable=False,
                server_default=sa.text("now()"),
            ),
        )
    op.add_column("tenants", sa.Column("status_reason", sa.Text))
    op.add_column("memberships", sa.Column("status_reason", sa.Text))
    op.add_column(
        "memberships", sa.Column("version", sa.Integer, nullable=False, server_default="1")
    )
    op.add_column("roles", sa.Column("description", sa.Text))
    op.execute("GRANT INSERT, UPDATE ON tenants TO maas_app")
    _add_lookups()


def _add_indexes() -> None:
    """Index tables that may be big without keeping writers out; safe to run again when cut short.

    It comes first: what runs outside of the transaction cannot be rolled back with it.
    """
    with op.get_context().autocommit_block():
        # It waits for transactions that are older, and nobody waits for it meanwhile.
        op.execute("SET lock_timeout = 0")
        for name, definition in INDEXES.items():
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
            op.execute(f"CREATE INDEX CONCURRENTLY {name} ON {definition}")
        op.execute("RESET lock_timeout")


def _add_lookups() -> None:
    """Answer what of an account's other tenants matters to an act in this one."""
    op.execute("""
        CREATE FUNCTION is_member_elsewhere(account uuid) RETURNS boolean
        LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
            SELECT EXISTS (SELECT FROM public.memberships m
                WHERE m.account_id = account
                  AND m.tenant_id <> current_setting('maas.tenant_id')::uuid)
        $$
    """)
    op.execute("""
        CREATE FUNCTION account_rights(account uuid) RETURNS text[]
        LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
            SELECT ARRAY(SELECT DISTINCT unnest(r.permissions)
                FROM public.membership_roles mr
                JOIN public.roles r ON r.tenant_id = mr.tenant_id AND r.name = mr.role_name
                WHERE mr.account_id = account)
        $$
    """)
    # The one way an account goes: not while it is a member of anything.
    op.execute("""
        CREATE FUNCTION forget_account(account uuid) RETURNS boolean
        LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
        BEGIN
            PERFORM FROM public.accounts a WHERE a.id = account FOR UPDATE;
            IF EXISTS (SELECT FROM public.memberships m WHERE m.account_id = account) THEN
                RETURN false;
            END IF;
            DELETE FROM public.sessions s WHERE s.account_id = account;
            DELETE FROM public.accounts a WHERE a.id = account;
            RETURN FOUND;
        END $$
    """)
    _grant("is_member_elsewhere(uuid)", "account_rights(uuid)", "forget_account(uuid)")


def _grant(*functions: str) -> None:
    for function in functions:
        op.execute(f"REVOKE ALL ON FUNCTION {function} FROM PUBLIC")
        op.execute(f"GRANT EXECUTE ON FUNCTION {function} TO maas_app")


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '1s'")
    for function in (
        "forget_account(uuid)",
        "account_rights(uuid)",
        "is_member_elsewhere(uuid)",
    ):
        op.execute(f"DROP FUNCTION {function}")
    for name in INDEXES:
        op.execute(f"DROP INDEX {name}")
    op.execute("REVOKE INSERT, UPDATE ON tenants FROM maas_app")
    op.drop_column("roles", "description")
    op.drop_column("memberships", "version")
    op.drop_column("memberships", "status_reason")
    op.drop_column("tenants", "status_reason")
    for table in reversed(CHANGED_TABLES):
        op.drop_column(table, "updated_at")
