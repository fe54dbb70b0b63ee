"""Let the application's roles into the schema, and nobody else."""

from alembic import op

revision = "0001_roles"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("GRANT USAGE ON SCHEMA public TO maas_app, maas_system")
    op.execute("GRANT SELECT ON alembic_version TO maas_app, maas_system")


def downgrade() -> None:
    op.execute("REVOKE SELECT ON alembic_version FROM maas_app, maas_system")
