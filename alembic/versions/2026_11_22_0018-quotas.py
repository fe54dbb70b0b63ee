"""Quotas, their balances and holds."""

revision = "0018_quotas"
down_revision = "0017_usage"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Reserve the number."""


def downgrade() -> None:
    """Reserve the number."""
