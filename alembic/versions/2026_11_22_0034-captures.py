"""Prompts and answers, where a tenant has them kept."""

revision = "0034_captures"
down_revision = "0033_replays"
branch_labels = None
depends_on = None


def upgrade() -> None: ...


def downgrade() -> None: ...
