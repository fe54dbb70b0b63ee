"""The ledger, call by call: by its primary key."""

from datetime import datetime
from typing import Final

from maas.shared.domain.ids import TenantId
from maas.shared.infrastructure.database import Database
from maas.user.public import Booking, HoldId

_FIND: Final = """
    SELECT settled_at, requests, input_tokens, cached_tokens, output_tokens, reasoning_tokens,
        cost_nanos, currency, is_estimated, is_overrun
    FROM usage WHERE at = $1 AND id = $2 AND tenant_id = $3
"""


class PostgresBookings:
    """The port, as `maas_app`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, tenant_id: TenantId, hold_id: HoldId, held_at: datetime) -> Booking | None:
        async with self._database.tenant(tenant_id) as connection:
            row = await connection.fetchrow(_FIND, held_at, hold_id, tenant_id)
        return None if row is None else Booking(**row)
