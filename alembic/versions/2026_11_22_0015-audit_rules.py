"""The trail watched: rules, alerts, webhooks and their deliveries."""

revision = "0015_audit_rules"
down_revision = "0014_audit_retention"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Nothing yet."""


def downgrade() -> None:
    """Nothing yet."""
