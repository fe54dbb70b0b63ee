"""People who leave: whose personal data is to be erased, and where they were members.

Beside it, the mails that could not be delivered.
"""

import sqlalchemy as sa
from alembic import op

revision = "0008_leaving"
down_revision = "0007_admin"
branch_labels = None
depends_on = None


def at(name: str, **options: object) -> sa.Column:
    return sa.Column(name, sa.DateTime(timezone=True), **options)


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '1s'")
    op.create_table(
        "audit_erasures",
        sa.Column("actor_id", sa.Uuid, nullable=False),
        at("requested_at", nullable=False, server_default=sa.text("clock_timestamp()")),
        sa.Column("reached_tenant_id", sa.Uuid),
        at("reached_at"),
        sa.Column("reached_event_id", sa.Uuid),
        at("erased_at"),
        sa.PrimaryKeyConstraint("actor_id", name="pk_audit_erasures"),
    )
    op.create_index(
        "ix_audit_erasures_requested_at",
        "audit_erasures",
        ["requested_at"],
        postgresql_where=sa.text("erased_at IS NULL"),
    )
    op.execute("REVOKE ALL ON audit_erasures FROM PUBLIC, maas_app, maas_system")
    op.execute("GRANT INSERT ON audit_erasures TO maas_app")
    op.execute("GRANT SELECT, UPDATE ON audit_erasures TO maas_system")
    op.execute("GRANT DELETE ON audit_personal TO maas_system")
    # What a task of the system changes leaves its event beside the change, as everything does.
    op.execute("GRANT INSERT ON audit_outbox TO maas_system")
    op.create_table(
        "undelivered_mails",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("recipient", sa.Text, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        at("created_at", nullable=False),
        at("failed_at", nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_undelivered_mails"),
    )
    op.create_index("ix_undelivered_mails_failed_at", "undelivered_mails", ["failed_at"])
    op.execute("REVOKE ALL ON undelivered_mails FROM PUBLIC, maas_app, maas_system")
    op.execute("GRANT SELECT, INSERT, DELETE ON undelivered_mails TO maas_system")
    op.execute("""
        CREATE FUNCTION memberships_of(account uuid) RETURNS TABLE (tenant_id uuid)
        LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
            SELECT m.tenant_id FROM public.memberships m WHERE m.account_id = account ORDER BY 1
        $$
    """)
    op.execute("REVOKE ALL ON FUNCTION memberships_of(uuid) FROM PUBLIC")
    op.execute("GRANT EXECUTE ON FUNCTION memberships_of(uuid) TO maas_app")


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '1s'")
    op.execute("DROP FUNCTION memberships_of(uuid)")
    op.drop_table("undelivered_mails")
    op.execute("REVOKE INSERT ON audit_outbox FROM maas_system")
    op.execute("REVOKE DELETE ON audit_personal FROM maas_system")
    op.drop_table("audit_erasures")
