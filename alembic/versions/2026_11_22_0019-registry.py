"""What is said of models and versions beside their names, and who else may read them."""

revision = "0019_registry"
down_revision = "0018_quotas"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
