"""Why and when access was changed, and how members are found."""

import sqlalchemy as sa
from alembic import op

revision = "0007_admin"
down_revision = "0006_sign_in_aids"
branch_labels = None
depends_on = None

CHANGED_TABLES = ("tenants", "roles", "memberships")


def upgrade() -> None:
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
    _add_indexes()
    _add_letters()
    _add_search()
    _add_lookups()


def _add_indexes() -> None:
    op.create_index(
        "ix_memberships_tenant_id_created_at_account_id",
        "memberships",
        ["tenant_id", "created_at", "account_id"],
    )
    op.create_index(
        "ix_memberships_suspended",
        "memberships",
        ["tenant_id", "created_at", "account_id"],
        postgresql_where=sa.text("status = 'suspended'"),
    )
    op.create_index("ix_tenants_created_at_id", "tenants", ["created_at", "id"])
    op.create_index(
        "ix_sessions_tenant_id",
        "sessions",
        ["tenant_id"],
        postgresql_where=sa.text("revoked_at IS NULL"),
    )
    op.execute("""
        DO $$ BEGIN
            IF EXISTS (SELECT FROM pg_extension WHERE extname = 'pg_trgm') THEN
                CREATE INDEX ix_accounts_names_trgm ON accounts
                    USING gin (username gin_trgm_ops, email gin_trgm_ops,
                               display_name gin_trgm_ops)
                    WITH (fastupdate = off);
            END IF;
        END $$
    """)


def _add_letters() -> None:
    """Index letters beyond ASCII one by one: names in them are short, and have no trigrams."""
    op.execute("""
        CREATE FUNCTION uncommon_letters(first text, second text) RETURNS text[]
        LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
            SELECT ARRAY(
                SELECT DISTINCT letter FROM regexp_split_to_table(
                    lower(coalesce(first, '') || ' ' || coalesce(second, '')), '') letter
                WHERE ascii(letter) > 127)
        $$
    """)
    op.execute(
        "CREATE INDEX ix_accounts_uncommon_letters ON accounts "
        "USING gin (uncommon_letters(email, display_name))"
    )


MATCHES = """
    m.tenant_id = current_setting('maas.tenant_id')::uuid
    AND (wanted_status IS NULL OR m.status = wanted_status)
    AND (wanted_role IS NULL OR EXISTS (
        SELECT FROM public.membership_roles r
        WHERE r.tenant_id = m.tenant_id AND r.account_id = m.account_id
          AND r.role_name = wanted_role))
    AND (cardinality(letters) = 0
         OR public.uncommon_letters(a.email, a.display_name) @> letters)
    AND (q IS NULL OR a.username ILIKE pattern OR a.email ILIKE pattern
         OR a.display_name ILIKE pattern)
"""

# plpgsql, planned for each call: a plan for any filter would not know how selective it is.
SETTINGS = """
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan
"""
PATTERN = r"pattern CONSTANT text := '%' || regexp_replace(q, '([\\%_])', '\\\1', 'g') || '%';"
LETTERS = "letters CONSTANT text[] := public.uncommon_letters(q, NULL);"


def _add_search() -> None:
    """Find the members of the tenant at hand; accounts themselves belong to none."""
    op.execute(f"""
        CREATE FUNCTION member_search(q text, wanted_status text, wanted_role text,
                                      before_at timestamptz, before_id uuid, row_limit integer)
        RETURNS TABLE (id uuid, username text, email text, display_name text,
                       account_status text, password_change_required boolean,
                       home_tenant_id uuid, status text, status_reason text, roles text[],
                       created_at timestamptz, updated_at timestamptz, version integer)
        {SETTINGS} AS $$
        DECLARE {PATTERN} {LETTERS}
        BEGIN
            RETURN QUERY
            SELECT a.id, a.username, a.email, a.display_name, a.status,
                   a.password_change_required, a.home_tenant_id, m.status, m.status_reason,
                   ARRAY(SELECT r.role_name FROM public.membership_roles r
                         WHERE r.tenant_id = m.tenant_id AND r.account_id = m.account_id
                         ORDER BY 1),
                   m.created_at, greatest(m.updated_at, a.updated_at), m.version + a.version
            FROM public.memberships m JOIN public.accounts a ON a.id = m.account_id
            WHERE {MATCHES}
              AND (before_at IS NULL OR (m.created_at, m.account_id) < (before_at, before_id))
            ORDER BY m.created_at DESC, m.account_id DESC LIMIT row_limit;
        END $$
    """)
    op.execute(f"""
        CREATE FUNCTION member_search_count(q text, wanted_status text, wanted_role text)
        RETURNS bigint {SETTINGS} AS $$
        DECLARE {PATTERN} {LETTERS}
        BEGIN
            RETURN (SELECT count(*) FROM public.memberships m
                    JOIN public.accounts a ON a.id = m.account_id WHERE {MATCHES});
        END $$
    """)
    _grant(
        "member_search(text, text, text, timestamptz, uuid, integer)",
        "member_search_count(text, text, text)",
    )


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
        "member_search_count(text, text, text)",
        "member_search(text, text, text, timestamptz, uuid, integer)",
    ):
        op.execute(f"DROP FUNCTION {function}")
    op.execute("DROP INDEX ix_accounts_uncommon_letters")
    op.execute("DROP FUNCTION uncommon_letters(text, text)")
    op.execute("DROP INDEX IF EXISTS ix_accounts_names_trgm")
    op.drop_index("ix_sessions_tenant_id", "sessions")
    op.drop_index("ix_tenants_created_at_id", "tenants")
    op.drop_index("ix_memberships_suspended", "memberships")
    op.drop_index("ix_memberships_tenant_id_created_at_account_id", "memberships")
    op.execute("REVOKE INSERT, UPDATE ON tenants FROM maas_app")
    op.drop_column("roles", "description")
    op.drop_column("memberships", "version")
    op.drop_column("memberships", "status_reason")
    op.drop_column("tenants", "status_reason")
    for table in reversed(CHANGED_TABLES):
        op.drop_column(table, "updated_at")
