"""What is to be freed of the artifact store."""

revision = "0022_collection"
down_revision = "0021_uploads"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
