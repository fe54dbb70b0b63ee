"""Rows of the usage ledger, as whoever settles a hold inserts them."""

from collections.abc import Sequence
from dataclasses import astuple, dataclass, field, fields
from datetime import UTC, datetime
from typing import TypeAlias
from uuid import UUID

import asyncpg

from maas.shared.domain.ids import DEFAULT_TENANT_ID, TenantId, new_id

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


@dataclass(frozen=True, kw_only=True)
class UsageRow:
    id: UUID = field(default_factory=new_id)
    at: datetime = field(default_factory=lambda: datetime.now(UTC))  # noqa: TID251  months there are
    tenant_id: TenantId = DEFAULT_TENANT_ID
    account_id: UUID | None = None
    actor_kind: str = "account"
    api_key_id: UUID | None = None
    model: str = "gemma"
    provider: str | None = None
    request_id: str = "r"
    requests: int = 1
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    storage_bytes: int = 0
    cost_nanos: int = 0
    currency: str | None = None
    is_estimated: bool = False
    is_overrun: bool = False


COLUMNS = tuple(each.name for each in fields(UsageRow))
ADD = f"""
    INSERT INTO usage ({", ".join(COLUMNS)})
    SELECT * FROM unnest($1::uuid[], $2::timestamptz[], $3::uuid[], $4::uuid[], $5::text[],
        $6::uuid[], $7::text[], $8::text[], $9::text[], $10::bigint[], $11::bigint[],
        $12::bigint[], $13::bigint[], $14::bigint[], $15::bigint[], $16::bigint[], $17::text[],
        $18::boolean[], $19::boolean[])
    ON CONFLICT (at, id) DO NOTHING
"""


async def add_usage(connection: Connection, rows: Sequence[UsageRow]) -> None:
    """Insert rows of one tenant in one statement and one transaction, as the application may."""
    async with connection.transaction():
        await act_in(connection, rows[0].tenant_id)
        await connection.execute(ADD, *zip(*(astuple(row) for row in rows), strict=True))


async def act_in(connection: Connection, tenant_id: UUID) -> None:
    """Let row-level security show this tenant until the transaction ends."""
    await connection.execute("SELECT set_config('maas.tenant_id', $1, true)", str(tenant_id))
