"""The trail counted: rollups that every insert into the log keeps."""

revision = "0012_audit_rollups"
down_revision = "0011_audit_pipeline"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Nothing yet."""


def downgrade() -> None:
    """Nothing yet."""
