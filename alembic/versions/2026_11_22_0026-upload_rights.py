"""An upload remembers what its sender may write to."""

revision = "0026_upload_rights"
down_revision = "0025_registry_counts"
branch_labels = None
depends_on = None


def upgrade() -> None: ...


def downgrade() -> None: ...
