"""The trail shortened: tombstones, policies, and the dropping of partitions."""

revision = "0014_audit_retention"
down_revision = "0013_audit_search"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Nothing yet."""


def downgrade() -> None:
    """Nothing yet."""
