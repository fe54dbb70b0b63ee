"""The deployments: names that calls go by, and the targets behind them."""

revision = "0031_deployments"
down_revision = "0030_provider_health"
branch_labels = None
depends_on = None


def upgrade() -> None: ...


def downgrade() -> None: ...
