"""Suppliers, their sealed credentials, and the tenants they are granted to."""

revision = "0027_providers"
down_revision = "0026_upload_rights"
branch_labels = None
depends_on = None


def upgrade() -> None: ...


def downgrade() -> None: ...
