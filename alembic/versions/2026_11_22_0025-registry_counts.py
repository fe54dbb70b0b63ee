"""What facets count is kept."""

revision = "0025_registry_counts"
down_revision = "0024_registry_search"
branch_labels = None
depends_on = None


def upgrade() -> None: ...


def downgrade() -> None: ...
