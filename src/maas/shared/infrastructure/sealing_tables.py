"""Which keys nothing may be sealed under any more, and which kept secrets do not open."""

from sqlalchemy import Column, DateTime, LargeBinary, Table, Text, Uuid

from maas.shared.infrastructure.database import mapper_registry

_metadata = mapper_registry.metadata
_instant = DateTime(timezone=True)

sealing_retired_keys = Table(
    "sealing_retired_keys",
    _metadata,
    Column("key_id", LargeBinary, primary_key=True),
    Column("retired_at", _instant, nullable=False),
)

sealing_faults = Table(
    "sealing_faults",
    _metadata,
    Column("place", Text, primary_key=True),
    Column("row_id", Uuid, primary_key=True),
    Column("tenant_id", Uuid, nullable=False),
    Column("noted_at", _instant, nullable=False),
)
