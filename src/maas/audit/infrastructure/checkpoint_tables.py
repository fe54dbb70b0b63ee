"""Tables of the signed checkpoints; triggers and grants are in the migration."""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    LargeBinary,
    Table,
    Text,
    UniqueConstraint,
)

from maas.shared.infrastructure.database import mapper_registry

_metadata = mapper_registry.metadata
_instant = DateTime(timezone=True)


def only_times_of_ours(*columns: str) -> CheckConstraint:
    """Let no time in that a reader could not hold, or a hash."""
    since, until = "1970-01-01 00:00:00+00", "2200-01-01 00:00:00+00"
    checks = [f"{column} >= '{since}' AND {column} < '{until}'" for column in columns]
    return CheckConstraint(" AND ".join(checks), name="times")


audit_signing_keys = Table(
    "audit_signing_keys",
    _metadata,
    Column("key_id", Text, primary_key=True),
    Column("public_key", LargeBinary, nullable=False),
    Column("first_seq", BigInteger, nullable=False),
    # The time of its first checkpoint, so that it can be checked.
    Column("created_at", _instant, nullable=False),
    only_times_of_ours("created_at"),
)

audit_checkpoints = Table(
    "audit_checkpoints",
    _metadata,
    Column("n", BigInteger, primary_key=True, autoincrement=False),
    Column("seq_from", BigInteger, nullable=False),
    Column("seq_to", BigInteger, nullable=False),
    Column("recorded_at", _instant, nullable=False),
    Column("root", LargeBinary, nullable=False),
    Column("head", LargeBinary, nullable=False),
    Column("previous", LargeBinary, nullable=False),
    Column("key_id", ForeignKey("audit_signing_keys.key_id"), nullable=False),
    Column("hash", LargeBinary, nullable=False),
    Column("signature", LargeBinary, nullable=False),
    UniqueConstraint("seq_to"),
    CheckConstraint("seq_from <= seq_to", name="seq_order"),
    only_times_of_ours("recorded_at"),
)
