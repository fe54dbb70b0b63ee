"""Nothing: what a sender may do is asked when the upload becomes a file, by the payer it has."""

revision = "0026_upload_rights"
down_revision = "0025_registry_counts"
branch_labels = None
depends_on = None


def upgrade() -> None: ...


def downgrade() -> None: ...
