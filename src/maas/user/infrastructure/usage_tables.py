"""The usage ledger and its rollups; trigger, policies and functions: migration 0017.

Rows are only ever added, by whoever settles a hold. The database keeps the rollups by itself: days,
weeks (from Monday on) and months are those of `at`, in UTC.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Date,
    DateTime,
    Index,
    Numeric,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)

from maas.shared.infrastructure.database import mapper_registry

metadata = mapper_registry.metadata

usage = Table(
    "usage",
    metadata,
    Column("id", Uuid, nullable=False),
    Column("at", DateTime(timezone=True), nullable=False),
    Column(
        "settled_at",
        DateTime(timezone=True),
        nullable=False,
        server_default=text("clock_timestamp()"),
    ),
    Column("tenant_id", Uuid, nullable=False),
    Column("account_id", Uuid),
    Column("actor_kind", Text, nullable=False),
    Column("api_key_id", Uuid),
    Column("model", Text(collation="C"), nullable=False),
    Column("provider", Text),
    Column("request_id", Text, nullable=False),
    Column("requests", BigInteger, nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("cached_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("reasoning_tokens", BigInteger, nullable=False),
    Column("storage_bytes", BigInteger, nullable=False),
    Column("cost_nanos", BigInteger, nullable=False),
    Column("currency", Text(collation="C")),
    Column("is_estimated", Boolean, nullable=False),
    Column("is_overrun", Boolean, nullable=False),
    PrimaryKeyConstraint("at", "id"),
    postgresql_partition_by="RANGE (at)",
)


def _rollup(name: str, *subject: Column[object]) -> Table:
    keys = ["tenant_id", *(column.name for column in subject)]
    return Table(
        name,
        metadata,
        Column("tenant_id", Uuid, nullable=False),
        *subject,
        Column("requests", BigInteger, nullable=False),
        Column("input_tokens", BigInteger, nullable=False),
        Column("cached_tokens", BigInteger, nullable=False),
        Column("output_tokens", BigInteger, nullable=False),
        Column("reasoning_tokens", BigInteger, nullable=False),
        Column("storage_bytes", BigInteger, nullable=False),
        Column("cost_nanos", Numeric(38, 0), nullable=False),
        Column("estimated", BigInteger, nullable=False),
        UniqueConstraint(*keys, name=f"uq_{name}", postgresql_nulls_not_distinct=True),
    )


def _of_call(name: str, period: str) -> Table:
    return _rollup(
        name,
        Column(period, Date, nullable=False),
        Column("model", Text(collation="C"), nullable=False),
        Column("api_key_id", Uuid),
        Column("account_id", Uuid),
        Column("actor_kind", Text, nullable=False),
        Column("currency", Text(collation="C")),
    )


usage_days = _of_call("usage_days", "day")
usage_weeks = _of_call("usage_weeks", "week")
usage_months = _of_call("usage_months", "month")
for _table, _period in ((usage_days, "day"), (usage_months, "month")):
    for _subject in ("api_key_id", "account_id"):
        Index(None, _table.c.tenant_id, _table.c[_subject], _table.c[_period])
usage_model_days = _rollup(
    "usage_model_days",
    Column("day", Date, nullable=False),
    Column("model", Text(collation="C"), nullable=False),
    Column("currency", Text(collation="C")),
    Column("slot", SmallInteger, nullable=False),
)
