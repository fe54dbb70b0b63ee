"""API keys, and the service accounts that hold some of them."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0016_api_keys"
down_revision = "0015_audit_rules"
branch_labels = None
depends_on = None

TABLES = ("service_accounts", "service_account_roles", "api_keys")
FUNCTIONS = (
    "api_key_principal(text)",
    "api_key_first_use(uuid, bytea)",
    "api_keys_used(uuid[])",
    "api_keys_stale(uuid, uuid)",
    "api_keys_revoked(uuid)",
    "api_key_is_known(text)",
)


def at(name: str, **options: object) -> sa.Column:
    return sa.Column(name, sa.DateTime(timezone=True), **options)


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '1s'")
    op.create_table(
        "service_accounts",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("tenant_id", sa.Uuid, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("description", sa.Text),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("created_by", sa.Uuid, nullable=False),
        at("created_at", nullable=False),
        at("updated_at", nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_service_accounts"),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name="fk_service_accounts_tenant_id"
        ),
        sa.UniqueConstraint("tenant_id", "name", name="uq_service_accounts_tenant_id_name"),
    )
    op.create_table(
        "service_account_roles",
        sa.Column("tenant_id", sa.Uuid, nullable=False),
        sa.Column("service_account_id", sa.Uuid, nullable=False),
        sa.Column("role_name", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint(
            "tenant_id", "service_account_id", "role_name", name="pk_service_account_roles"
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "service_account_id"],
            ["service_accounts.tenant_id", "service_accounts.id"],
            name="fk_service_account_roles_tenant_id_service_account_id",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "role_name"],
            ["roles.tenant_id", "roles.name"],
            name="fk_service_account_roles_tenant_id_role_name",
        ),
    )
    op.create_index(
        "ix_service_account_roles_tenant_id_role_name",
        "service_account_roles",
        ["tenant_id", "role_name"],
    )
    _add_keys()
    # The key an invitation was made with: it is worth no more than the key is by then.
    op.add_column("invitations", sa.Column("api_key_id", sa.Uuid))
    _guard()
    _add_lookup()
    _add_notes()
    for function in FUNCTIONS:
        op.execute(f"REVOKE ALL ON FUNCTION {function} FROM PUBLIC")
        op.execute(f"GRANT EXECUTE ON FUNCTION {function} TO maas_app")


def _add_keys() -> None:
    """Tie each key to its holder, so that it goes where the membership or service account goes."""
    op.create_table(
        "api_keys",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("tenant_id", sa.Uuid, nullable=False),
        sa.Column("account_id", sa.Uuid),
        sa.Column("service_account_id", sa.Uuid),
        sa.Column("public_id", sa.Text, nullable=False),
        sa.Column("prefix", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("scopes", postgresql.ARRAY(sa.Text), nullable=False),
        sa.Column("allowed_networks", postgresql.ARRAY(sa.Text)),
        sa.Column("allowed_models", postgresql.ARRAY(sa.Text)),
        sa.Column("requests_per_minute", sa.Integer),
        sa.Column("secret_hash", sa.LargeBinary, nullable=False),
        sa.Column("is_secret_used", sa.Boolean, nullable=False),
        sa.Column("previous_hash", sa.LargeBinary),
        at("previous_valid_until"),
        at("rotated_at"),
        at("expires_at", nullable=False),
        at("last_used_at"),
        sa.Column("created_by", sa.Uuid, nullable=False),
        sa.Column("created_by_key", sa.Uuid),
        at("created_at", nullable=False),
        at("updated_at", nullable=False),
        sa.Column("auth_version", sa.Integer, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_api_keys"),
        sa.UniqueConstraint("public_id", name="uq_api_keys_public_id"),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_api_keys_tenant_id"),
        sa.ForeignKeyConstraint(
            ["tenant_id", "account_id"],
            ["memberships.tenant_id", "memberships.account_id"],
            name="fk_api_keys_tenant_id_account_id",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "service_account_id"],
            ["service_accounts.tenant_id", "service_accounts.id"],
            name="fk_api_keys_tenant_id_service_account_id",
            ondelete="CASCADE",
        ),
        sa.CheckConstraint(
            "num_nonnulls(account_id, service_account_id) = 1", name="ck_api_keys_one_holder"
        ),
    )
    op.create_index("ix_api_keys_account_id", "api_keys", ["account_id", "tenant_id"])
    op.create_index(
        "ix_api_keys_service_account_id", "api_keys", ["service_account_id", "tenant_id"]
    )


def _guard() -> None:
    for table in TABLES:
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        op.execute(
            f"CREATE POLICY own_tenant ON {table} TO maas_app "
            "USING (tenant_id = current_setting('maas.tenant_id')::uuid) "
            "WITH CHECK (tenant_id = current_setting('maas.tenant_id')::uuid)"
        )
        op.execute(f"CREATE POLICY owner_lookups ON {table} FOR SELECT TO maas_owner USING (true)")
        op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO maas_app")
        op.execute(f"GRANT SELECT ON {table} TO maas_system")
    op.execute("CREATE POLICY owner_notes ON api_keys FOR UPDATE TO maas_owner USING (true)")
    op.execute("CREATE POLICY owner_revokes ON api_keys FOR DELETE TO maas_owner USING (true)")


def _add_lookup() -> None:
    """Tell what a key may do, before its tenant is known; times are left as they run out."""
    op.execute("""
        CREATE FUNCTION api_key_principal(key text)
        RETURNS TABLE (
            id uuid, tenant_id uuid, account_id uuid, service_account_id uuid, username text,
            permissions text[], scopes text[], allowed_networks text[], allowed_models text[],
            requests_per_minute integer, secret_hash bytea, is_secret_used boolean,
            previous_hash bytea, previous_ms bigint, left_ms bigint, auth_version integer)
        LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
            SELECT k.id, k.tenant_id, k.account_id, k.service_account_id,
                coalesce(a.username, s.name),
                ARRAY(
                    SELECT unnest(r.permissions)
                    FROM public.membership_roles mr
                    JOIN public.roles r ON r.tenant_id = mr.tenant_id AND r.name = mr.role_name
                    WHERE mr.tenant_id = k.tenant_id AND mr.account_id = k.account_id
                    UNION
                    SELECT unnest(r.permissions)
                    FROM public.service_account_roles sr
                    JOIN public.roles r ON r.tenant_id = sr.tenant_id AND r.name = sr.role_name
                    WHERE sr.tenant_id = k.tenant_id
                        AND sr.service_account_id = k.service_account_id),
                k.scopes, k.allowed_networks, k.allowed_models, k.requests_per_minute,
                k.secret_hash, k.is_secret_used,
                CASE WHEN k.previous_valid_until > clock_timestamp() THEN k.previous_hash END,
                floor(1000 * extract(
                    epoch FROM k.previous_valid_until - clock_timestamp()))::bigint,
                floor(1000 * extract(epoch FROM k.expires_at - clock_timestamp()))::bigint,
                k.auth_version
            FROM public.api_keys k
            JOIN public.tenants t ON t.id = k.tenant_id AND t.status = 'active'
            LEFT JOIN public.memberships m ON m.tenant_id = k.tenant_id
                AND m.account_id = k.account_id AND m.status = 'active'
            LEFT JOIN public.accounts a ON a.id = m.account_id AND a.status = 'active'
            LEFT JOIN public.service_accounts s ON s.tenant_id = k.tenant_id
                AND s.id = k.service_account_id AND s.status = 'active'
            WHERE k.public_id = key AND k.expires_at > clock_timestamp()
                AND (a.id IS NOT NULL OR s.id IS NOT NULL)
        $$
    """)
    op.execute("""
        CREATE FUNCTION api_key_is_known(key text) RETURNS boolean
        LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
            SELECT EXISTS (SELECT FROM public.api_keys k WHERE k.public_id = key)
        $$
    """)


def _add_notes() -> None:
    """Note uses, and call cached rights stale, of keys in whatever tenant."""
    op.execute("""
        CREATE FUNCTION api_key_first_use(key uuid, secret bytea) RETURNS boolean
        LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
        BEGIN
            UPDATE public.api_keys k SET is_secret_used = true
            WHERE k.id = key AND k.secret_hash = secret;
            RETURN FOUND;
        END $$
    """)
    # What somebody is changing at the moment is passed over, and told again the next time.
    op.execute("""
        CREATE FUNCTION api_keys_used(keys uuid[]) RETURNS SETOF uuid
        LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
            UPDATE public.api_keys k SET last_used_at = date_trunc('minute', clock_timestamp())
            FROM (SELECT l.id FROM public.api_keys l WHERE l.id = ANY (keys)
                  ORDER BY l.id FOR UPDATE SKIP LOCKED) free
            WHERE k.id = free.id RETURNING k.id
        $$
    """)
    op.execute("""
        CREATE FUNCTION api_keys_stale(account uuid, tenant uuid)
        RETURNS TABLE (public_id text, auth_version integer)
        LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
            UPDATE public.api_keys k SET auth_version = k.auth_version + 1
            FROM (SELECT l.id FROM public.api_keys l
                  WHERE l.account_id = account OR l.tenant_id = tenant
                  ORDER BY l.id FOR NO KEY UPDATE) held
            WHERE k.id = held.id RETURNING k.public_id, k.auth_version
        $$
    """)
    op.execute("""
        CREATE FUNCTION api_keys_revoked(account uuid)
        RETURNS TABLE (public_id text, auth_version integer)
        LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
            DELETE FROM public.api_keys k
            USING (SELECT l.id FROM public.api_keys l
                   WHERE l.account_id = account ORDER BY l.id FOR UPDATE) held
            WHERE k.id = held.id RETURNING k.public_id, k.auth_version + 1
        $$
    """)


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '1s'")
    for function in reversed(FUNCTIONS):
        op.execute(f"DROP FUNCTION {function}")
    op.drop_column("invitations", "api_key_id")
    for table in reversed(TABLES):
        op.drop_table(table)
