"""Keys that seal, and the change from one to the next."""

revision = "0029_sealing"
down_revision = "0028_provider_models"
branch_labels = None
depends_on = None


def upgrade() -> None: ...


def downgrade() -> None: ...
