"""How models and versions are found."""

revision = "0024_registry_search"
down_revision = "0023_facts"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
