"""How suppliers are doing: written by the watch alone, read by whoever sees the provider."""

import sqlalchemy as sa
from alembic import op

revision = "0030_provider_health"
down_revision = "0029_sealing"
branch_labels = None
depends_on = None

MINE = "current_setting('maas.tenant_id')::uuid"


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '1s'")
    op.create_table(
        "provider_health",
        sa.Column("provider_id", sa.Uuid, nullable=False),
        sa.Column("tenant_id", sa.Uuid, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("since", sa.DateTime(timezone=True)),
        sa.Column("checked_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("duration_ms", sa.Integer, nullable=False),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.CheckConstraint(
            "status IN ('unknown', 'healthy', 'unhealthy')", name="ck_provider_health_status"
        ),
        sa.PrimaryKeyConstraint("provider_id", name="pk_provider_health"),
        # Foreign keys see past row security, so the tenant is named as well.
        sa.ForeignKeyConstraint(
            ["provider_id", "tenant_id"],
            ["providers.id", "providers.tenant_id"],
            name="fk_provider_health_provider_id_tenant_id",
            ondelete="CASCADE",
        ),
    )
    op.execute("ALTER TABLE provider_health ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE provider_health FORCE ROW LEVEL SECURITY")
    op.execute(
        "CREATE POLICY own_tenant ON provider_health TO maas_app "
        f"USING (tenant_id = {MINE}) WITH CHECK (tenant_id = {MINE})"
    )
    op.execute(
        "CREATE POLICY of_others ON provider_health FOR SELECT TO maas_app "
        "USING (provider_is_read(provider_id, tenant_id))"
    )
    # The revocation undoes what default privileges may have given.
    op.execute("REVOKE ALL ON provider_health FROM PUBLIC, maas_app, maas_system")
    op.execute("GRANT SELECT ON provider_health TO maas_app")
    op.execute("GRANT SELECT, INSERT, UPDATE ON provider_health TO maas_system")


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '1s'")
    op.drop_table("provider_health")
