"""Whether somebody is of a tenant, for other contexts."""

from typing import Final

from maas.shared.domain.ids import AccountId, TenantId
from maas.shared.infrastructure.database import Database

IS_ACTIVE: Final = """
SELECT EXISTS (
    SELECT FROM memberships m JOIN accounts a ON a.id = m.account_id
    WHERE m.tenant_id = $1 AND m.account_id = $2 AND m.status = 'active' AND a.status = 'active'
) OR EXISTS (
    SELECT FROM service_accounts s WHERE s.tenant_id = $1 AND s.id = $2 AND s.status = 'active'
)
"""


class PostgresMembers:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def is_active(self, tenant_id: TenantId, account_id: AccountId) -> bool:
        async with self._database.tenant(tenant_id) as connection:
            return bool(await connection.fetchval(IS_ACTIVE, tenant_id, account_id))
