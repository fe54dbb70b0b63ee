"""How suppliers are doing."""

revision = "0030_provider_health"
down_revision = "0029_sealing"
branch_labels = None
depends_on = None


def upgrade() -> None: ...


def downgrade() -> None: ...
