"""Waits after failed sign-ins, links sent by mail, the mails themselves, and invitations."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006_sign_in_aids"
down_revision = "0005_model"
branch_labels = None
depends_on = None


GUESS_FUNCTIONS = (
    "begin_login_guess(text[], int[], text, int, interval, interval, timestamptz)",
    "judge_login_guess(text[], int[], text, int, interval, timestamptz)",
    "settle_login_guess(text[], text, int, interval, interval, timestamptz)",
)


SESSIONS_INDEX = "ix_sessions_account_id_address"


def at(name: str, **options: object) -> sa.Column:
    return sa.Column(name, sa.DateTime(timezone=True), **options)


def upgrade() -> None:
    # Outside the transaction, where nobody waits for it, and again from the start where it was cut.
    with op.get_context().autocommit_block():
        # Asked at each sign-in: has this account been opened from this address before?
        op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {SESSIONS_INDEX}")
        op.execute(f"CREATE INDEX CONCURRENTLY {SESSIONS_INDEX} ON sessions (account_id, address)")
    op.execute("SET LOCAL lock_timeout = '1s'")
    op.add_column("accounts", at("email_verified_at"))
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
    _count_guesses()


def _count_guesses() -> None:
    """Make the counting one statement each way; ADR 0014 has the rules.

    `hidden` names the last counter as the one that must not tell. Rows are locked in one order.
    """
    op.execute("""
        CREATE FUNCTION judge_login_guess(
            keys text[], bursts int[], hidden text, free int, memory interval, at timestamptz,
            OUT verdict text, OUT wait interval
        ) LANGUAGE sql STABLE SET search_path = pg_catalog, public AS $$
            WITH counters AS (
                SELECT k.key IS NOT DISTINCT FROM hidden AS is_hidden, k.burst,
                    greatest(t.blocked_until - at, interval '0') AS held,
                    CASE WHEN t.touched_at < at - memory THEN 0 ELSE coalesce(t.failures, 0) END
                        AS failures,
                    CASE WHEN t.pending_until <= at THEN 0 ELSE coalesce(t.pending, 0) END
                        AS pending
                FROM unnest(keys, bursts) AS k (key, burst)
                LEFT JOIN public.login_throttles t USING (key)
            ), rooms AS (
                SELECT is_hidden, held,
                    pending >= CASE WHEN failures < free THEN burst - failures ELSE 1 END AS is_full
                FROM counters
            )
            SELECT CASE
                    WHEN max(held) FILTER (WHERE NOT is_hidden) > interval '0' THEN 'wait'
                    WHEN bool_or(is_full) FILTER (WHERE NOT is_hidden) THEN 'busy'
                    WHEN bool_or(is_full OR held > interval '0') FILTER (WHERE is_hidden)
                        THEN 'decoy'
                    ELSE 'admitted'
                END,
                max(held) FILTER (WHERE NOT is_hidden)
            FROM rooms
        $$
    """)
    # What is refused is neither locked nor written: that is what a flood consists of. A crash of
    # the server may forget the guesses of its last 0.2 s, for no commit waits for the disk.
    op.execute("""
        CREATE FUNCTION begin_login_guess(
            keys text[], bursts int[], hidden text, free int, memory interval, lease interval,
            at timestamptz, OUT verdict text, OUT wait interval
        ) LANGUAGE plpgsql SET search_path = pg_catalog, public AS $$
        BEGIN
            SELECT * INTO verdict, wait
            FROM public.judge_login_guess(keys, bursts, hidden, free, memory, at);
            IF verdict IN ('wait', 'busy') THEN
                RETURN;
            END IF;
            PERFORM set_config('synchronous_commit', 'off', true);
            INSERT INTO public.login_throttles
                (key, failures, pending, pending_until, blocked_until, touched_at)
            SELECT key, 0, 0, at, 'epoch', at FROM unnest(keys) AS key ORDER BY key
            ON CONFLICT DO NOTHING;
            PERFORM FROM public.login_throttles t WHERE t.key = ANY (keys)
            ORDER BY t.key FOR UPDATE;
            SELECT * INTO verdict, wait
            FROM public.judge_login_guess(keys, bursts, hidden, free, memory, at);
            IF verdict IN ('wait', 'busy') THEN
                RETURN;
            END IF;
            UPDATE public.login_throttles t SET
                failures = CASE WHEN t.touched_at < at - memory THEN 0 ELSE t.failures END,
                pending = CASE WHEN t.pending_until <= at THEN 0 ELSE t.pending END + 1,
                pending_until = at + lease,
                touched_at = at
            WHERE t.key = ANY (keys)
                AND (verdict = 'admitted' OR t.key IS DISTINCT FROM hidden);
        END
        $$
    """)
    op.execute("""
        CREATE FUNCTION settle_login_guess(
            keys text[], outcome text, free int, first_wait interval, longest_wait interval,
            at timestamptz
        ) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, public AS $$
        BEGIN
            PERFORM set_config('synchronous_commit', 'off', true);
            PERFORM FROM public.login_throttles t WHERE t.key = ANY (keys)
            ORDER BY t.key FOR UPDATE;
            UPDATE public.login_throttles t SET
                pending = greatest(t.pending - 1, 0),
                failures = CASE outcome
                    WHEN 'failed' THEN t.failures + 1 WHEN 'forgiven' THEN 0 ELSE t.failures END,
                blocked_until = CASE outcome
                    WHEN 'failed' THEN CASE
                        WHEN t.failures + 1 < free THEN t.blocked_until
                        -- Past so many doublings the longest is reached whatever the first.
                        ELSE greatest(t.blocked_until, at + least(
                            first_wait * 2 ^ least(t.failures + 1 - free, 30), longest_wait)) END
                    WHEN 'forgiven' THEN 'epoch'
                    ELSE t.blocked_until END,
                touched_at = at
            WHERE t.key = ANY (keys);
        END
        $$
    """)
    for function in GUESS_FUNCTIONS:
        op.execute(f"REVOKE ALL ON FUNCTION {function} FROM PUBLIC")
        op.execute(f"GRANT EXECUTE ON FUNCTION {function} TO maas_app")


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
    for function in GUESS_FUNCTIONS:
        op.execute(f"DROP FUNCTION {function}")
    for table in ("invitations", "outgoing_mails", "link_tokens", "login_throttles"):
        op.drop_table(table)
    op.drop_index(SESSIONS_INDEX, "sessions", if_exists=True)
    op.drop_column("accounts", "email_verified_at")
