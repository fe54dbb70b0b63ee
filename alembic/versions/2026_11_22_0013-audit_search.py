"""The trail searched: indexes for every filter and for text."""

revision = "0013_audit_search"
down_revision = "0012_audit_rollups"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Nothing yet."""


def downgrade() -> None:
    """Nothing yet."""
