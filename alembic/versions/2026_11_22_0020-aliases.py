"""Names that point at versions, and where each has pointed."""

revision = "0020_aliases"
down_revision = "0019_registry"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
