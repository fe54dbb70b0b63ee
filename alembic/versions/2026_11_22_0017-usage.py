"""The usage ledger."""

revision = "0017_usage"
down_revision = "0016_api_keys"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Reserve the number."""


def downgrade() -> None:
    """Reserve the number."""
