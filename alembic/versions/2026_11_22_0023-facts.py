"""What was read in the files of versions."""

revision = "0023_facts"
down_revision = "0022_collection"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
