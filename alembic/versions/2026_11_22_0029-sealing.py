"""Keys that seal, and the change from one to the next.

Nothing is written that is sealed under a retired key: whoever retires one waits for the writers who
began before, and those who come after are refused. They seal again, under the key that is current.
"""

import sqlalchemy as sa
from alembic import op

revision = "0029_sealing"
down_revision = "0028_provider_models"
branch_labels = None
depends_on = None

SEALED = {
    "audit_webhooks": ("secret", "previous_secret"),
    "provider_credentials": ("sealed",),
}
TABLES = ("sealing_retired_keys", "sealing_faults")

# The id of the key comes after two bytes; the text of a bytea begins with two characters.
# The state is one of our own: the API tells it from a lock, and asks the caller to come again.
REFUSE = """
CREATE FUNCTION refuse_retired_keys() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET bytea_output = 'hex' AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(hashtextextended('maas.sealing', 0));
    IF EXISTS (
        SELECT FROM public.sealing_retired_keys r, unnest(TG_ARGV) AS name
        WHERE to_jsonb(NEW) ->> name IS DISTINCT FROM to_jsonb(OLD) ->> name
          AND encode(r.key_id, 'hex') = substr(to_jsonb(NEW) ->> name, 7, 16)
    ) THEN
        RAISE EXCEPTION 'sealed under a key that was retired' USING ERRCODE = 'MS001';
    END IF;
    RETURN NEW;
END $$
"""


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '1s'")
    op.create_table(
        "sealing_retired_keys",
        sa.Column("key_id", sa.LargeBinary, nullable=False),
        sa.Column("retired_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("key_id", name="pk_sealing_retired_keys"),
    )
    op.create_table(
        "sealing_faults",
        sa.Column("place", sa.Text, nullable=False),
        sa.Column("row_id", sa.Uuid, nullable=False),
        sa.Column("tenant_id", sa.Uuid, nullable=False),
        sa.Column("noted_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("place", "row_id", name="pk_sealing_faults"),
    )
    op.execute(f"REVOKE ALL ON {', '.join(TABLES)} FROM PUBLIC, maas_app, maas_system")
    op.execute("GRANT SELECT ON sealing_retired_keys TO maas_app")
    op.execute("GRANT SELECT, INSERT ON sealing_retired_keys TO maas_system")
    op.execute("GRANT SELECT, INSERT, DELETE ON sealing_faults TO maas_system")
    op.execute(REFUSE)
    op.execute("REVOKE ALL ON FUNCTION refuse_retired_keys() FROM PUBLIC")
    op.execute("GRANT EXECUTE ON FUNCTION refuse_retired_keys() TO maas_app, maas_system")
    for table, columns in SEALED.items():
        names = ", ".join(f"'{column}'" for column in columns)
        op.execute(f"""
            CREATE TRIGGER refuse_retired_keys BEFORE INSERT OR UPDATE OF {", ".join(columns)}
            ON {table} FOR EACH ROW EXECUTE FUNCTION refuse_retired_keys({names})
        """)


def _forget_replaced_secrets() -> None:
    """End the day in which a webhook's old secret signs too: older code looks for it elsewhere."""
    # The owner is bound by row-level security as well, and none of its policies lets it change.
    op.execute("ALTER TABLE audit_webhooks NO FORCE ROW LEVEL SECURITY")
    op.execute(
        "UPDATE audit_webhooks SET previous_secret = NULL, previous_until = NULL "
        "WHERE previous_secret IS NOT NULL"
    )
    op.execute("ALTER TABLE audit_webhooks FORCE ROW LEVEL SECURITY")


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '1s'")
    for table in SEALED:
        op.execute(f"DROP TRIGGER refuse_retired_keys ON {table}")
    op.execute("DROP FUNCTION refuse_retired_keys()")
    _forget_replaced_secrets()
    for table in reversed(TABLES):
        op.drop_table(table)
