"""The models of suppliers, and what they cost from when on."""

revision = "0028_provider_models"
down_revision = "0027_providers"
branch_labels = None
depends_on = None


def upgrade() -> None: ...


def downgrade() -> None: ...
