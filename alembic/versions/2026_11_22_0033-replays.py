"""Which calls were made under an Idempotency-Key."""

revision = "0033_replays"
down_revision = "0032_metered_calls"
branch_labels = None
depends_on = None


def upgrade() -> None: ...


def downgrade() -> None: ...
