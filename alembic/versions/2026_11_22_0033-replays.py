"""Which calls were made under an Idempotency-Key: digests, and whose answer it was; no answer."""

import sqlalchemy as sa
from alembic import op

revision = "0033_replays"
down_revision = "0032_metered_calls"
branch_labels = None
depends_on = None

MINE = "current_setting('maas.tenant_id')::uuid"
CLAIM = "replay_claim(uuid, uuid, bytea, bytea, text)"
FREE = "replay_free(uuid, uuid, bytea, text)"

# Whoever comes at the same time waits for the first one's row, and reads it. It may have been given
# up by then, so that there is nothing to read: then the place is free.
MAKE_CLAIM = """
    CREATE FUNCTION replay_claim(
        tenant uuid, credential uuid, of_key bytea, of_body bytea, request text)
    RETURNS TABLE (first_request text, is_same boolean)
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s' AS $$
    BEGIN
        PERFORM set_config('maas.tenant_id', tenant::text, true);
        LOOP
            INSERT INTO public.inference_replays AS r
                (tenant_id, credential_id, key_digest, body_digest, request_id)
            VALUES (tenant, credential, of_key, of_body, request)
            ON CONFLICT ON CONSTRAINT pk_inference_replays DO UPDATE
                SET body_digest = excluded.body_digest, request_id = excluded.request_id,
                    made_at = clock_timestamp()
                WHERE r.made_at <= clock_timestamp() - interval '24 hours';
            IF FOUND THEN
                RETURN;
            END IF;
            RETURN QUERY
                SELECT r.request_id, r.body_digest = of_body FROM public.inference_replays r
                WHERE r.tenant_id = tenant AND r.credential_id = credential
                    AND r.key_digest = of_key;
            IF FOUND THEN
                RETURN;
            END IF;
        END LOOP;
    END $$
"""
MAKE_FREE = """
    CREATE FUNCTION replay_free(tenant uuid, credential uuid, of_key bytea, request text)
    RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s' AS $$
    BEGIN
        PERFORM set_config('maas.tenant_id', tenant::text, true);
        DELETE FROM public.inference_replays r
        WHERE r.tenant_id = tenant AND r.credential_id = credential AND r.key_digest = of_key
            AND r.request_id = request;
    END $$
"""


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '1s'")
    op.create_table(
        "inference_replays",
        sa.Column("tenant_id", sa.Uuid, nullable=False),
        sa.Column("credential_id", sa.Uuid, nullable=False),
        sa.Column("key_digest", sa.LargeBinary, nullable=False),
        sa.Column("body_digest", sa.LargeBinary, nullable=False),
        sa.Column("request_id", sa.Text, nullable=False),
        sa.Column(
            "made_at",
            sa.DateTime(timezone=True),
            nullable=False,
            server_default=sa.text("clock_timestamp()"),
        ),
        sa.PrimaryKeyConstraint(
            "tenant_id", "credential_id", "key_digest", name="pk_inference_replays"
        ),
    )
    op.create_index("ix_inference_replays_made_at", "inference_replays", ["made_at"])
    op.execute("ALTER TABLE inference_replays ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE inference_replays FORCE ROW LEVEL SECURITY")
    op.execute(
        "CREATE POLICY own_tenant ON inference_replays TO maas_app "
        f"USING (tenant_id = {MINE}) WITH CHECK (tenant_id = {MINE})"
    )
    # The revocation undoes what default privileges may have given.
    op.execute("REVOKE ALL ON inference_replays FROM PUBLIC, maas_app, maas_system")
    op.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON inference_replays TO maas_app")
    op.execute("GRANT SELECT, DELETE ON inference_replays TO maas_system")
    for make, function in ((MAKE_CLAIM, CLAIM), (MAKE_FREE, FREE)):
        op.execute(make)
        op.execute(f"REVOKE ALL ON FUNCTION {function} FROM PUBLIC")
        op.execute(f"GRANT EXECUTE ON FUNCTION {function} TO maas_app")


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '1s'")
    op.execute(f"DROP FUNCTION {FREE}")
    op.execute(f"DROP FUNCTION {CLAIM}")
    op.drop_table("inference_replays")
