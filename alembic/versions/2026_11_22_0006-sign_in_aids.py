"""Waits after failed sign-ins, links sent by mail, the mails themselves, and invitations."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006_sign_in_aids"
down_revision = "0005_model"
branch_labels = None
depends_on = None


def at(name: str, **options: object) -> sa.Column:
    return sa.Column(name, sa.DateTime(timezone=True), **options)


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '1s'")
    op.add_column("accounts", at("email_verified_at"))
    # Asked at each sign-in: has this account been opened from this address before?
    op.create_index("ix_sessions_account_id_address", "sessions", ["account_id", "address"])
    op.create_table(
        "login_throttles",
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("pending", sa.Integer, nullable=False),
        at("pending_until", nullable=False),
        at("blocked_until", nullable=False),
        at("touched_at", nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_login_throttles"),
    )
    op.create_table(
        "link_tokens",
        sa.Column("token_hash", sa.LargeBinary, nullable=False),
        sa.Column("purpose", sa.Text, nullable=False),
        sa.Column("account_id", sa.Uuid, nullable=False),
        sa.Column("email", sa.Text, nullable=False),
        at("created_at", nullable=False),
        at("expires_at", nullable=False),
        sa.PrimaryKeyConstraint("token_hash", name="pk_link_tokens"),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name="fk_link_tokens_account_id", ondelete="CASCADE"
        ),
    )
    op.create_index("ix_link_tokens_account_id", "link_tokens", ["account_id"])
    op.create_index("ix_link_tokens_expires_at", "link_tokens", ["expires_at"])
    op.create_table(
        "outgoing_mails",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("recipient", sa.Text, nullable=False),
        sa.Column("reference", sa.Uuid),
        sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
        at("created_at", nullable=False),
        at("due_at", nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_outgoing_mails"),
    )
    # Asked for twice before it is sent, it is sent once.
    op.create_index(
        "uq_outgoing_mails_kind_recipient",
        "outgoing_mails",
        ["kind", sa.text("lower(recipient)"), "reference"],
        unique=True,
        postgresql_nulls_not_distinct=True,
    )
    op.create_index("ix_outgoing_mails_due_at", "outgoing_mails", ["due_at"])
    op.create_table(
        "invitations",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("tenant_id", sa.Uuid, nullable=False),
        sa.Column("email", sa.Text, nullable=False),
        sa.Column("roles", postgresql.ARRAY(sa.Text), nullable=False),
        sa.Column("token_hash", sa.LargeBinary, nullable=False),
        sa.Column("mailed_token_hash", sa.LargeBinary),
        sa.Column("invited_by", sa.Uuid, nullable=False),
        at("created_at", nullable=False),
        at("expires_at", nullable=False),
        at("accepted_at"),
        sa.Column("accepted_by", sa.Uuid),
        at("revoked_at"),
        sa.PrimaryKeyConstraint("id", name="pk_invitations"),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_invitations_tenant_id"),
        sa.UniqueConstraint("token_hash", name="uq_invitations_token_hash"),
        sa.UniqueConstraint("mailed_token_hash", name="uq_invitations_mailed_token_hash"),
    )
    op.create_index(
        "ix_invitations_tenant_id_created_at_id", "invitations", ["tenant_id", "created_at", "id"]
    )
    _guard()


def _guard() -> None:
    op.execute("ALTER TABLE invitations ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE invitations FORCE ROW LEVEL SECURITY")
    op.execute(
        "CREATE POLICY own_tenant ON invitations TO maas_app "
        "USING (tenant_id = current_setting('maas.tenant_id')::uuid) "
        "WITH CHECK (tenant_id = current_setting('maas.tenant_id')::uuid)"
    )
    op.execute("CREATE POLICY owner_lookups ON invitations FOR SELECT TO maas_owner USING (true)")
    op.execute("GRANT SELECT, INSERT, UPDATE ON login_throttles TO maas_app")
    # The application spends links and cannot make any; it asks for mails and cannot read them.
    op.execute("GRANT SELECT, DELETE ON link_tokens TO maas_app")
    op.execute("GRANT INSERT ON outgoing_mails TO maas_app")
    op.execute("GRANT SELECT, INSERT, UPDATE ON invitations TO maas_app")
    op.execute("GRANT SELECT, DELETE ON login_throttles TO maas_system")
    op.execute("GRANT SELECT, INSERT, DELETE ON link_tokens TO maas_system")
    op.execute("GRANT SELECT, UPDATE, DELETE ON outgoing_mails TO maas_system")
    op.execute("GRANT SELECT, UPDATE ON invitations TO maas_system")
    # Whoever holds the link is nobody yet, so the tenant is not known when it is looked up.
    op.execute("""
        CREATE FUNCTION invitation_of(hash bytea) RETURNS TABLE (id uuid, tenant_id uuid)
        LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public AS $$
            SELECT i.id, i.tenant_id FROM public.invitations i
            JOIN public.tenants t ON t.id = i.tenant_id AND t.status = 'active'
            WHERE i.token_hash = hash OR i.mailed_token_hash = hash
        $$
    """)
    op.execute("REVOKE ALL ON FUNCTION invitation_of(bytea) FROM PUBLIC")
    op.execute("GRANT EXECUTE ON FUNCTION invitation_of(bytea) TO maas_app")


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '1s'")
    op.execute("DROP FUNCTION invitation_of(bytea)")
    for table in ("invitations", "outgoing_mails", "link_tokens", "login_throttles"):
        op.drop_table(table)
    op.drop_index("ix_sessions_account_id_address", "sessions")
    op.drop_column("accounts", "email_verified_at")
