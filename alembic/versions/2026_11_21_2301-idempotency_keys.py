"""The answers kept under Idempotency-Keys."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002_idempotency"
down_revision = "0001_roles"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '1s'")
    op.create_table(
        "idempotency_keys",
        sa.Column("tenant_id", sa.Uuid, nullable=False),
        sa.Column("principal_id", sa.Uuid, nullable=False),
        sa.Column("key_hash", sa.LargeBinary, nullable=False),
        sa.Column("route", sa.Text, nullable=False),
        sa.Column("request_hash", sa.LargeBinary, nullable=False),
        sa.Column("status", sa.SmallInteger, nullable=False),
        sa.Column("headers", postgresql.JSONB, nullable=False),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            nullable=False,
            server_default=sa.text("clock_timestamp()"),
        ),
        sa.PrimaryKeyConstraint(
            "tenant_id", "principal_id", "key_hash", name="pk_idempotency_keys"
        ),
    )
    op.create_index("ix_idempotency_keys_created_at", "idempotency_keys", ["created_at"])
    op.execute("ALTER TABLE idempotency_keys ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE idempotency_keys FORCE ROW LEVEL SECURITY")
    op.execute(
        """CREATE POLICY own_tenant ON idempotency_keys TO maas_app
           USING (tenant_id = current_setting('maas.tenant_id')::uuid)
           WITH CHECK (tenant_id = current_setting('maas.tenant_id')::uuid)"""
    )
    op.execute("GRANT SELECT, INSERT, DELETE ON idempotency_keys TO maas_app")
    # The role that sees all tenants clears away what has expired.
    op.execute("GRANT SELECT, DELETE ON idempotency_keys TO maas_system")


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '1s'")
    op.drop_table("idempotency_keys")
