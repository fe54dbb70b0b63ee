"""Prompts and answers, where a tenant has them kept, and the people none are kept of any more."""

import sqlalchemy as sa
from alembic import op

revision = "0034_captures"
down_revision = "0033_replays"
branch_labels = None
depends_on = None

MINE = "current_setting('maas.tenant_id')::uuid"


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '1s'")
    _add_captures()
    _add_erasures()


def _add_captures() -> None:
    op.create_table(
        "inference_captures",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("tenant_id", sa.Uuid, nullable=False),
        sa.Column("account_id", sa.Uuid, nullable=False),
        sa.Column("request_id", sa.Text, nullable=False),
        sa.Column("deployment_id", sa.Uuid, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("is_stream", sa.Boolean, nullable=False),
        sa.Column("is_whole", sa.Boolean, nullable=False),
        sa.Column("captured_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("keep_until", sa.DateTime(timezone=True), nullable=False),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
        sa.Column("content", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_inference_captures"),
    )
    # It is compressed before it is sealed, and no further after that.
    op.execute("ALTER TABLE inference_captures ALTER COLUMN content SET STORAGE EXTERNAL")
    op.create_index(
        "ix_inference_captures_tenant_id_request_id_captured_at_id",
        "inference_captures",
        ["tenant_id", "request_id", "captured_at", "id"],
    )
    op.create_index("ix_inference_captures_account_id", "inference_captures", ["account_id"])
    op.create_index("ix_inference_captures_keep_until", "inference_captures", ["keep_until"])
    op.execute("ALTER TABLE inference_captures ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE inference_captures FORCE ROW LEVEL SECURITY")
    op.execute(
        "CREATE POLICY own_tenant ON inference_captures TO maas_app "
        f"USING (tenant_id = {MINE}) WITH CHECK (tenant_id = {MINE})"
    )
    # The revocation undoes what default privileges may have given. The API changes none.
    op.execute("REVOKE ALL ON inference_captures FROM PUBLIC, maas_app, maas_system")
    op.execute("GRANT SELECT, INSERT ON inference_captures TO maas_app")
    op.execute("GRANT SELECT, UPDATE, DELETE ON inference_captures TO maas_system")
    _refuse_retired_keys()


def _refuse_retired_keys() -> None:
    """Do as 0029 for a table whose rows are large: what its function does spells whole rows."""
    op.execute("""
        CREATE FUNCTION refuse_retired_key_of_capture() RETURNS trigger
        LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
        BEGIN
            PERFORM pg_advisory_xact_lock_shared(hashtextextended('maas.sealing', 0));
            IF EXISTS (
                SELECT FROM public.sealing_retired_keys
                WHERE key_id = substring(NEW.sealed FROM 3 FOR 8)
            ) THEN
                RAISE EXCEPTION 'sealed under a key that was retired' USING ERRCODE = 'MS001';
            END IF;
            RETURN NEW;
        END $$
    """)
    op.execute("REVOKE ALL ON FUNCTION refuse_retired_key_of_capture() FROM PUBLIC")
    op.execute("GRANT EXECUTE ON FUNCTION refuse_retired_key_of_capture() TO maas_app, maas_system")
    op.execute("""
        CREATE TRIGGER refuse_retired_keys BEFORE INSERT OR UPDATE OF sealed
        ON inference_captures FOR EACH ROW EXECUTE FUNCTION refuse_retired_key_of_capture()
    """)


def _add_erasures() -> None:
    op.create_table(
        "inference_erasures",
        sa.Column("account_id", sa.Uuid, nullable=False),
        sa.Column("erased_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("account_id", name="pk_inference_erasures"),
    )
    op.execute("REVOKE ALL ON inference_erasures FROM PUBLIC, maas_app, maas_system")
    op.execute("GRANT SELECT ON inference_erasures TO maas_app")
    op.execute("GRANT SELECT, INSERT ON inference_erasures TO maas_system")


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '1s'")
    op.drop_table("inference_erasures")
    op.drop_table("inference_captures")
    op.execute("DROP FUNCTION refuse_retired_key_of_capture()")
