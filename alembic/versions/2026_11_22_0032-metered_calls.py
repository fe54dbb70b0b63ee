"""Calls end with their event in the transaction that books them."""

revision = "0032_metered_calls"
down_revision = "0031_deployments"
branch_labels = None
depends_on = None


def upgrade() -> None: ...


def downgrade() -> None: ...
